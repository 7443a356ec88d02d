"""`assay train` and `assay study`; torch is imported only when one of them runs."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from shards.config import Table, decode, load_recipe
from shards.console import console, quiet_option, recipe_options
from shards.errors import RecipeError
from shards.manifest import MANIFEST
from shards.select import columns
from trainer.config import StudyConfig, TrainConfig
from trainer.presets import expand_preset
from trainer.signals import PREEMPTED, Stopped
from trainer.sizes import flops_per_token, memory_bytes, parameter_count

_DATA = click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A tokens dataset."
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


@click.command("train")
@recipe_options
@_DATA
@_OUT
@click.option("--select", metavar="EXPR", help="Train on the documents that this selects.")
@click.option("--arm", metavar="NAME", help="Train on this arm of the recipe's study.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of train.seed.")
@_RECIPE_ONLY
@quiet_option
def train_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: Path,
    out: Path,
    select: str | None,
    arm: str | None,
    seed: int | None,
    recipe_only: bool,
    quiet: bool,
) -> None:
    """Train one model on a selection of a tokens dataset.

    Without --select and --arm it trains on the study's control. A run that was stopped goes on
    where it was, and a finished one is not run again. SIGTERM and SIGUSR1 stop it with a checkpoint
    and exit code 75, ^C with 130.
    """
    table = load_recipe(recipe, overrides)
    config, study = _decode(table)
    if seed is not None:
        config = msgspec.structs.replace(config, seed=seed)
    name = _arm_name(study, select, arm)
    what = f"arm {name}" if select is None else repr(select)
    if dry_run and (recipe_only or not (data / MANIFEST).exists()):
        _check_syntax(study, *([] if select is None else [select]))
        click.echo(f"would train on {what}: {_budget(config)}; {_not_read(data)}")
        return

    _share_the_machine()
    from shards.dataset import TokenDataset
    from trainer.data import read_documents
    from trainer.study import check_apart, open_arm

    dataset = TokenDataset.open(data)
    if select is None:
        view = open_arm(dataset, study, config, name)
    else:
        check_apart(dataset, select, study.valid, "--select")
        view = dataset.select(select)
    valid = read_documents(dataset, study.valid, config.eval_tokens)
    if dry_run:
        click.echo(f"would train on {what}: {_size(config, dataset.vocab_size)}")
        click.echo(f"{view.documents} documents, {view.tokens} tokens; {len(valid)} to validate on")
        click.echo(_expected(config, dataset.vocab_size))
        return

    from trainer.loop import choose_device, train_on_ranks
    from trainer.progress import Reporter
    from trainer.ranks import join_ranks
    from trainer.show import run_line

    with (
        _exit_code_of_a_stop(),
        join_ranks(config, choose_device(config).type) as ranks,
        Reporter(quiet=quiet or not ranks.first) as reporter,
    ):
        record = train_on_ranks(view, valid, config, out, reporter, ranks, arm or "train")
    if record:
        click.echo(run_line(record))


@click.command("study")
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
    runs = len(study.arm_names) * len(study.seeds)
    if dry_run and (recipe_only or not (data / MANIFEST).exists()):
        _check_syntax(study)
        click.echo(f"would make {runs} runs, each of {_budget(config)}; {_not_read(data)}")
        return

    _share_the_machine()
    from shards.dataset import TokenDataset
    from trainer.study import open_study
    from trainer.study_power import power_line

    opened = open_study(TokenDataset.open(data), study, config)
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
        click.echo(f"each run: {_expected(config, opened.dataset.vocab_size)}")
        return

    from trainer.loop import choose_device
    from trainer.parallel import default_jobs, run_jobs
    from trainer.progress import Bars, Reporter
    from trainer.show import study_summary, study_table
    from trainer.study import open_runs, run_study

    if not quiet:
        console.print(power, soft_wrap=True)
    on_cpu = choose_device(config).type == "cpu"
    jobs = jobs or (default_jobs(config.threads) if on_cpu else 1)
    if jobs > 1:
        command = ("train", recipe, *(f"--set={item}" for item in overrides), f"--data={data}")
        todo = open_runs(opened, study, config, out, command)
        if len(todo) < runs and not quiet:
            console.print(f"{runs - len(todo)} of {runs} runs are up to date")
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, jobs, bars)
    with _exit_code_of_a_stop(), Reporter(quiet=quiet or jobs > 1, runs=runs) as reporter:
        record = run_study(opened, study, config, out, reporter)
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
    return decode(expand_preset(table), "train", TrainConfig), decode(table, "study", StudyConfig)


def _arm_name(study: StudyConfig, select: str | None, arm: str | None) -> str:
    """Return the arm to train on; with `--select` it is not looked at.

    Raises:
        RecipeError: both options, or an arm that the recipe does not have.
    """
    if select is not None and arm is not None:
        raise RecipeError(f"--select {select!r} and --arm {arm!r}: give one of the two")
    name = arm or study.control
    if name not in study.arm_names:
        raise RecipeError(f"--arm {name!r}: the recipe's study has the arms {study.arm_names}")
    return name


def _check_syntax(study: StudyConfig, *more: str) -> None:
    """Check that selections are expressions; whether their columns exist only a dataset can say."""
    for expression in (*study.arms.values(), study.valid, *more):
        columns(expression)


@contextmanager
def _exit_code_of_a_stop() -> Iterator[None]:
    """End the command with `PREEMPTED` after a stop that a scheduler asked for."""
    try:
        yield
    except Stopped as stop:
        console.print(
            f"[yellow]stopped:[/] {escape(str(stop))}; run the same command again and it goes on",
            soft_wrap=True,
        )
        click.get_current_context().exit(PREEMPTED)


def _not_read(data: Path) -> str:
    return f"{data} is not read" if (data / MANIFEST).exists() else f"{data} is not there yet"


def _budget(config: TrainConfig) -> str:
    return f"{config.total_steps:,} steps of {config.batch_tokens:,} tokens"


def _size(config: TrainConfig, vocabulary: int, runs: int = 1) -> Any:
    from trainer.show import size_line

    rows = config.batch_size // config.microbatches
    return size_line(
        config,
        parameter_count(config.model, vocabulary),
        flops_per_token(config.model, vocabulary, config.sequence_length),
        memory_bytes(config.model, vocabulary, config.sequence_length, rows),
        runs,
    )


def _expected(config: TrainConfig, vocabulary: int) -> str:
    """Say how long a run would take on this machine, as busy as it is now."""
    from trainer.loop import choose_device
    from trainer.speed import expected_tokens_per_s

    speed = expected_tokens_per_s(config, vocabulary, choose_device(config))
    seconds = round(config.total_steps * config.batch_tokens / speed)
    return (
        f"about {datetime.timedelta(seconds=seconds)} (h:mm:ss) at {speed:,.0f} tokens/s, by a"
        " measurement of this machine's speed now; validation comes on top"
    )
