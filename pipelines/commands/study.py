"""`assay study`: the trainer's study, on a tokens dataset or on one that the chain makes first.

The trainer is known by the names of its commands only, as everywhere in `pipelines` but
`__main__`.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import click
import msgspec

from pipelines.arguments import names_data
from shards.config import did_you_mean, load_recipe
from shards.console import quiet_option, recipe_options

_TRAINER = {
    "run": "trainer.cli:study_command",
    "show": "trainer.study_cli:show_command",
    "compare": "trainer.study_cli:compare_command",
    "suggest": "trainer.study_cli:suggest_command",
    "fit": "trainer.study_cli:fit_command",
}
_HELP = {
    "run": "Run a study; `assay study RECIPE …` is short for it.",
    "show": "Show what a study found.",
    "compare": "Compare two studies arm by arm.",
    "fit": "Fit R_D* and R_N* to studies of several model sizes.",
    "suggest": "Write the next recipe: a mixture that should be better, with a prediction.",
}


class _Study(click.Group):
    """Loads a subcommand when it is used; what is none of them is a recipe, and to be run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_TRAINER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(_TRAINER[cmd_name]) if cmd_name in _TRAINER else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, rest = (args[0], args[1:]) if args[0] in _TRAINER else ("run", args)
        if name == "run" and not names_data(rest):
            return name, chain_command, rest
        return name, self.get_command(ctx, name), rest

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Options may stand before the recipe: then they are the study's, not this group's.
        if args and args[0] not in {*_TRAINER, *ctx.help_option_names}:
            first = Path(args[0])
            if not (args[0].startswith("-") or first.suffix == ".toml" or first.is_file()):
                hint = did_you_mean(args[0], tuple(_TRAINER), "commands")
                ctx.fail(f"{args[0]!r} is no recipe file and no command of assay study{hint}")
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


@click.group("study", cls=_Study, context_settings={"help_option_names": ["-h", "--help"]})
def study_command() -> None:
    """Train every arm of a study with every seed, and say which data was better.

    \b
    assay study RECIPE --data TOKENS --out DIR   on a tokens dataset
    assay study RECIPE --out DIR                 the whole chain first, into DIR
    """


@click.command("run")
@recipe_options
@click.option("--data", help="A tokens dataset. [default: the chain of RECIPE makes one in --out]")
@click.option("--out", required=True, type=click.Path(), help="Folder for everything.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at once. [default: one a core]")
@quiet_option
def chain_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: str | None,
    out: str,
    jobs: int | None,
    quiet: bool,
) -> None:
    """Make the dataset of a study by the chain of its recipe, and run the study on it.

    A recipe without input.paths studies the corpus that `assay corpus` builds. What is done is
    skipped, so a study that was stopped goes on where it was.
    """
    from pipelines.chain import Stage, chain, check_chain, check_tables, run_chain

    del data  # with it, the trainer's command runs
    table = load_recipe(recipe, overrides)
    table.setdefault("study", {})  # its defaults are a study
    check_tables(table)
    extra = ("--quiet",) if quiet else ()
    corpus: list[Stage] = []
    given = table.get("input", {})
    if isinstance(given, dict) and not given.get("paths"):  # else curate says what is wrong
        folder = Path(out) / "corpus"
        overrides = (f"input.paths={json.dumps([str(folder / '*.jsonl.zst')])}", *overrides)
        corpus = [Stage("corpus", ("corpus", "--out", str(folder), *extra))]
    stages = chain(recipe, table, out, overrides, extra)
    if jobs is not None:
        stages = [_with_jobs(stage, jobs) for stage in stages]
    # A corpus that is yet to be built, which curate would look for, and the report, which has no
    # recipe, are left out of the checks.
    checks = stages[1 if corpus else 0 : -1]
    if code := check_chain(checks):
        raise SystemExit(code)
    if dry_run:
        click.echo(f"would run {', '.join(stage.label for stage in [*corpus, *stages])}")
        return
    raise SystemExit(run_chain([*corpus, *stages]))


def _with_jobs(stage: Any, jobs: int) -> Any:
    if stage.label != "study":
        return stage
    return msgspec.structs.replace(stage, arguments=(*stage.arguments, "--jobs", str(jobs)))


def _load(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command
