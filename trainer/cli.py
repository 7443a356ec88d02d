"""`assay train` and `assay study`; torch is imported only when one of them runs."""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from shards.config import Table, decode, load_recipe
from shards.console import console, quiet_option, recipe_options
from shards.errors import RecipeError
from shards.manifest import MANIFEST
from trainer.config import StudyConfig, TrainConfig

_DATA = click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A tokens dataset."
)
_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)


@click.command("train")
@recipe_options
@_DATA
@_OUT
@click.option("--select", metavar="EXPR", help="Train on the documents that this selects.")
@click.option("--arm", metavar="NAME", help="Train on this arm of the recipe's study.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of train.seed.")
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
    quiet: bool,
) -> None:
    """Train one model on a selection of a tokens dataset.

    Without --select and --arm it trains on the study's control. A run that was stopped goes on
    where it was, and a finished one is not run again.
    """
    table = load_recipe(recipe, overrides)
    config, study = _decode(table)
    if seed is not None:
        config = msgspec.structs.replace(config, seed=seed)
    expression = _expression(study, select, arm)
    if dry_run and not (data / MANIFEST).exists():
        click.echo(f"would train on {expression!r}: {_budget(config)}; {data} is not there yet")
        return

    _share_the_machine()
    from shards.dataset import TokenDataset
    from trainer.data import read_documents
    from trainer.study import check_apart

    dataset = TokenDataset.open(data)
    check_apart(dataset, expression, study.valid, "the selection")
    view = dataset.select(expression)
    valid = read_documents(dataset, study.valid, config.eval_tokens)
    if dry_run:
        click.echo(f"would train on {expression!r}: {_size(config, dataset.vocab_size)}")
        click.echo(f"{view.documents} documents, {view.tokens} tokens; {len(valid)} to validate on")
        return

    from trainer.loop import train
    from trainer.progress import Reporter
    from trainer.show import run_line

    with Reporter(quiet=quiet) as reporter:
        record = train(view, valid, config, out, reporter, arm or "train")
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
@quiet_option
def study_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: Path,
    out: Path,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train every arm of a study with every seed, and say which data was better.

    Runs that are done are skipped, so a study that was stopped goes on where it was.
    """
    table = load_recipe(recipe, overrides)
    config, study = _decode(table)
    runs = len(study.arms) * len(study.seeds)
    if dry_run and not (data / MANIFEST).exists():
        click.echo(f"would make {runs} runs, each of {_budget(config)}; {data} is not there yet")
        return

    _share_the_machine()
    from shards.dataset import TokenDataset
    from trainer.study import open_study

    opened = open_study(TokenDataset.open(data), study, config)
    if dry_run:
        click.echo(f"would make {_size(config, opened.dataset.vocab_size, runs)}")
        for name, view in opened.arms.items():
            epochs = config.total_steps * config.batch_tokens / max(1, view.tokens)
            click.echo(
                f"arm {name}: {view.documents} documents, {view.tokens} tokens,"
                f" {epochs:.2f} epochs: {view.expression}"
            )
        return

    from trainer.loop import choose_device
    from trainer.parallel import default_jobs, run_jobs
    from trainer.progress import Bars, Reporter
    from trainer.show import study_summary, study_table
    from trainer.study import open_runs, run_study

    on_cpu = choose_device(config).type == "cpu"
    jobs = jobs or (default_jobs(config.threads) if on_cpu else 1)
    if jobs > 1:
        command = ("train", recipe, *(f"--set={item}" for item in overrides), f"--data={data}")
        todo = open_runs(opened, study, config, out, command)
        if len(todo) < runs and not quiet:
            console.print(f"{runs - len(todo)} of {runs} runs are up to date")
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, jobs, bars)
    with Reporter(quiet=quiet or jobs > 1, runs=runs) as reporter:
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
    return decode(table, "train", TrainConfig), decode(table, "study", StudyConfig)


def _expression(study: StudyConfig, select: str | None, arm: str | None) -> str:
    """Return what to train on.

    Raises:
        RecipeError: both options, or an arm that the recipe does not have.
    """
    if select is not None and arm is not None:
        raise RecipeError(f"--select {select!r} and --arm {arm!r}: give one of the two")
    if select is not None:
        return select
    name = arm or study.control
    if name not in study.arms:
        raise RecipeError(f"--arm {name!r}: the recipe's study has the arms {list(study.arms)}")
    return study.arms[name]


def _budget(config: TrainConfig) -> str:
    return f"{config.total_steps:,} steps of {config.batch_tokens:,} tokens"


def _size(config: TrainConfig, vocabulary: int, runs: int = 1) -> Any:
    from trainer.model import flops_per_token, memory_bytes, parameter_count
    from trainer.show import size_line

    return size_line(
        config,
        parameter_count(config.model, vocabulary),
        flops_per_token(config.model, vocabulary, config.sequence_length),
        memory_bytes(config.model, vocabulary, config.sequence_length, config.batch_size),
        runs,
    )
