"""`assay train` and `assay study`; torch is imported only when one of them runs."""

import datetime
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from shards.config import Table, decode, did_you_mean, load_recipe
from shards.console import console, quiet_option, recipe_options
from shards.errors import AssayError, RecipeError
from shards.manifest import MANIFEST
from shards.remote import is_remote
from shards.select import columns
from trainer.config import TrainConfig, check_train
from trainer.footprint import footprint, footprint_line
from trainer.presets import expand_preset
from trainer.show import quantity
from trainer.signals import (
    NO_RUN,
    NOT_BEGUN,
    PREEMPTED,
    StopFlag,
    Stopped,
    even_if_blocked,
    stop_signals,
)
from trainer.sizes import flops_per_token, parameter_count
from trainer.study_config import StudyConfig

_DATA = click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A tokens dataset."
)
_DATA_OR_URL = click.option(
    "--data",
    required=True,
    metavar="PATH",
    help="A tokens dataset: a folder, or a URL that fsspec knows (s3://…, gs://…).",
)
_CACHE = click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder for blocks of a dataset at a URL."
)
_CACHE_MB = click.option(
    "--cache-mb",
    type=click.IntRange(1),
    help="Bound of the cache in MiB. [default: all of the dataset]",
)
_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)

_RECIPE_ONLY = click.option(
    "--recipe-only",
    is_flag=True,
    hidden=True,  # for `assay run`, which checks a recipe before its first stage
    help="With --dry-run: look at the recipe and at no data, even where it is there.",
)


class StoppableCommand(click.Command):
    """A command that ends with `PREEMPTED` when a scheduler asks for it, from its start to its end.

    `ctx.obj` is the `StopFlag`, which raises signals at once until the command says otherwise.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command under its flag; what `Stopped` says is shown."""
        where = NOT_BEGUN if self.name == "train" else NO_RUN
        # A program has a handler, which would raise while it leaves; that takes torch a while.
        is_program = callable(signal.getsignal(signal.SIGTERM))
        ctx.obj = ctx.with_resource(stop_signals(where, to_the_end=is_program))
        try:
            return super().invoke(ctx)
        except Stopped as stop:
            ctx.obj.note()  # a second signal does not interrupt what is said of the first
            _say_stopped(ctx, ctx.obj.name, str(stop))
            ctx.exit(PREEMPTED)


def _say_stopped(ctx: click.Context, name: str, why: str) -> None:
    """Say that the command was stopped, and in a run's folder too, as torchrun hides exit codes."""
    console.print(
        f"[yellow]stopped:[/] {escape(why)}; run the same command again and it goes on",
        soft_wrap=True,
    )
    if ctx.command is train_command and not ctx.params["dry_run"] and _first_rank():
        from trainer.events import add_early_stop
        from trainer.folder import claim

        out = ctx.params["out"]
        with suppress(AssayError, OSError), claim(out, wait_seconds=0):
            add_early_stop(out, name)


def _first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


@click.command("train", cls=StoppableCommand)
@recipe_options
@_DATA_OR_URL
@_CACHE
@_CACHE_MB
@_OUT
@click.option("--select", metavar="EXPR", help="Train on the documents that this selects.")
@click.option("--arm", metavar="NAME", help="Train on this arm of the recipe's study.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of train.seed.")
@click.option(
    "--ranks",
    "world_size",
    type=click.IntRange(1),
    help="With --dry-run: what so many ranks would need. [default: as torchrun started them]",
)
@_RECIPE_ONLY
@quiet_option
def train_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: str,
    cache: Path | None,
    cache_mb: int | None,
    out: Path,
    select: str | None,
    arm: str | None,
    seed: int | None,
    world_size: int | None,
    recipe_only: bool,
    quiet: bool,
) -> None:
    """Train one model on a selection of a tokens dataset.

    A dataset at a URL is read through a cache, each block verified. Without --select and --arm it
    trains on the study's control. Validation documents that the arms may read (study.max_overlap)
    are taken out if the recipe has a [study] table or --arm is given, as in the study itself; with
    --select, or without that table, study.valid is taken as it is.

    A run that was stopped goes on where it was, and a finished one is not run again. SIGTERM and
    SIGUSR1 stop it at any moment with exit code 75, ^C with 130; what was trained is in a
    checkpoint. What another run (another seed, recipe or dataset) left in --out is put aside in a
    folder there.
    """
    table = load_recipe(recipe, overrides)
    config, study = _decode(table)
    if seed is not None:
        config = msgspec.structs.replace(config, seed=seed)
    name = _arm_name(study, select, arm)
    what = f"arm {name}" if select is None else repr(select)
    there = is_remote(data) or (Path(data) / MANIFEST).exists()
    if dry_run and (recipe_only or not there):
        _check_syntax(study, *([] if select is None else [select]))
        click.echo(f"would train on {what}: {_budget(config)}; {_not_read(Path(data))}")
        return

    _share_the_machine()
    from trainer.data import open_tokens, read_documents, reading_lines
    from trainer.study import check_apart, open_arm, open_valid

    dataset = open_tokens(data, cache, cache_mb)
    click.get_current_context().call_on_close(dataset.close)
    if select is None:
        view = open_arm(dataset, study, config, name)
    else:
        check_apart(dataset, select, study.valid, "--select")
        view = dataset.select(select)
    if arm is not None or (select is None and "study" in table):
        valid = open_valid(dataset, study, config)  # as the study does for this arm
    else:
        valid = read_documents(dataset, study.valid, config.eval_tokens)
    if dry_run:
        click.echo(f"would train on {what}: {_size(config, dataset.vocab_size)}")
        click.echo(f"{view.documents} documents, {view.tokens} tokens; {len(valid)} to validate on")
        for line in reading_lines(view, config):
            click.echo(line)
        for line in _needs(config, dataset.vocab_size, world_size):
            click.echo(line)
        return

    from trainer.device import choose_device
    from trainer.loop import train_on_ranks
    from trainer.parallel import PARENT
    from trainer.progress import Reporter
    from trainer.ranks import join_ranks
    from trainer.show import run_line

    ctx = click.get_current_context()
    stop: StopFlag = ctx.obj
    with ExitStack() as stack:
        with even_if_blocked(lambda name: _say_stopped(ctx, name, f"{name} {NOT_BEGUN}")):
            ranks = stack.enter_context(join_ranks(config, choose_device(config).type))
        reporter = stack.enter_context(Reporter(quiet=quiet or not ranks.first))
        record = train_on_ranks(
            *(view, valid, config, out, reporter, ranks, arm or "train", stop),
            keep_others=PARENT not in os.environ,  # a study has said what it replaces
        )
        stop.note()  # it is finished: there is nothing left to stop
    if record:
        click.echo(run_line(record))


@click.command("study", cls=StoppableCommand)
@recipe_options
@_DATA
@_OUT
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Runs at once, each a process. [default: cores / train.threads; 1 on a GPU]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@_RECIPE_ONLY
@quiet_option
def study_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: Path,
    out: Path,
    jobs: int | None,
    as_json: bool,
    recipe_only: bool,
    quiet: bool,
) -> None:
    """Train every arm of a study with every seed, and say which data was better.

    Runs that are done are skipped, so a study that was stopped goes on where it was.
    """
    table = load_recipe(recipe, overrides)
    config, study = _decode(table)
    if dry_run and (recipe_only or not (data / MANIFEST).exists()):
        _check_syntax(study)
        least = "at least " if study.random_like is None else ""  # the data decides (with_random)
        runs = len(study.arm_names) * len(study.seeds)
        click.echo(f"would make {least}{runs} runs, each of {_budget(config)}; {_not_read(data)}")
        return

    _share_the_machine()
    from shards.dataset import TokenDataset
    from trainer.study import open_study
    from trainer.study_power import power_line

    opened = open_study(TokenDataset.open(data), study, config)
    study = opened.study
    runs = len(study.arm_names) * len(study.seeds)
    power = power_line(study, opened.valid.bytes)
    if dry_run:
        click.echo(f"would make {_size(config, opened.dataset.vocab_size, runs)}")
        click.echo(power)
        for name, view in opened.arms.items():
            epochs = config.total_steps * config.batch_tokens / max(1, view.tokens)
            click.echo(
                f"arm {name}: {view.documents} documents, {view.tokens} tokens,"
                f" {epochs:.2f} epochs: {view.expression}"
            )
        for line in _needs(config, opened.dataset.vocab_size, 1):
            click.echo(f"each run: {line}")
        return

    from trainer.show import study_summary, study_table
    from trainer.study_jobs import make_study

    if not quiet:
        console.print(power, soft_wrap=True)
    command = ("train", recipe, *(f"--set={item}" for item in overrides), f"--data={data}")
    record = make_study(opened, study, config, out, command, jobs=jobs, quiet=quiet)
    if as_json:
        click.echo(msgspec.json.encode(study_summary(record)))
        return
    if not quiet:
        console.print(study_table(record))
    click.echo(record.sentence)


def _share_the_machine() -> None:
    """Let idle OpenMP threads sleep; must come before torch is imported.

    By default they spin, and on a machine that has other work the spinning keeps the very thread
    from running that they wait for: measured on two busy cores, 1500 tokens/s against 4000.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _decode(table: Table) -> tuple[TrainConfig, StudyConfig]:
    config = decode(expand_preset(table), "train", TrainConfig)
    check_train(config)
    return config, decode(table, "study", StudyConfig)


def _arm_name(study: StudyConfig, select: str | None, arm: str | None) -> str:
    """Return the arm to train on; with `--select` it is not looked at.

    Raises:
        RecipeError: both options, or an arm that the recipe does not have.
    """
    if select is not None and arm is not None:
        raise RecipeError(f"--select {select!r} and --arm {arm!r}: give one of the two")
    name = arm or study.control
    undecided = study.random_like is None and name.startswith("random-")  # `open_arm` knows
    if name not in study.arm_names and not undecided:
        known = did_you_mean(name, tuple(study.arm_names), "arms")
        raise RecipeError(f"--arm {name!r}: not one of the study's{known}")
    return name


def _check_syntax(study: StudyConfig, *more: str) -> None:
    """Check that selections are expressions; whether their columns exist only a dataset can say."""
    named = [*study.named_expressions.items(), *(("--select", expression) for expression in more)]
    for key, expression in named:
        try:
            columns(expression)
        except RecipeError as error:
            raise RecipeError(f"{key}: {error}") from None


def _not_read(data: Path) -> str:
    return f"{data} is not read" if (data / MANIFEST).exists() else f"{data} is not there yet"


def _budget(config: TrainConfig) -> str:
    return f"{config.total_steps:,} steps of {config.batch_tokens:,} tokens"


def _size(config: TrainConfig, vocabulary: int, runs: int = 1) -> str:
    from trainer.show import size_line

    return size_line(
        config,
        parameter_count(config.model, vocabulary),
        flops_per_token(config.model, vocabulary, config.sequence_length),
        footprint(config, vocabulary).device,
        runs,
    )


def _needs(config: TrainConfig, vocabulary: int, world_size: int | None) -> list[str]:
    """Say what a run needs of memory and time, by this machine's speed, as busy as it is now.

    Raises:
        RecipeError: the recipe's microbatches cannot be shared by so many ranks.
    """
    from trainer.device import choose_device
    from trainer.ranks import check_ranks
    from trainer.speed import expected_tokens_per_s, peak

    world_size = world_size or int(os.environ.get("WORLD_SIZE", "1"))
    check_ranks(config, world_size)
    device = choose_device(config)
    found = peak(config, device)
    speed = expected_tokens_per_s(config, vocabulary, found, world_size)
    seconds = round(config.total_steps * config.batch_tokens / speed)
    several = "" if world_size == 1 else f" with {world_size} devices like this one"
    return [
        footprint_line(config, vocabulary, world_size, gpu=device.type == "cuda"),
        f"about {datetime.timedelta(seconds=seconds)} (h:mm:ss) at {speed:,.0f} tokens/s{several},"
        f" by {quantity(found.flops_per_s)}FLOP/s ({found.source}); validation comes on top",
    ]
