"""`assay run`: the whole chain of a recipe."""

import click

from pipelines.commands.options import events_option, workers_option
from shards.config import load_recipe
from shards.console import quiet_option, recipe_options


@click.command("run")
@recipe_options
@click.option("--out", required=True, type=click.Path(), help="Folder for everything.")
@workers_option
@events_option
@quiet_option
def run_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    out: str,
    workers: int,
    events: bool,
    quiet: bool,
) -> None:
    """Run curate, tokenizer, tokenize, study and report; what is already done is skipped.

    With --dry-run every stage checks its part of RECIPE before anything runs.
    """
    from pipelines.chain import chain, check_chain, check_tables, run_chain

    extra = ("--quiet",) if quiet else ()
    table = load_recipe(recipe, overrides)
    check_tables(table)
    stages = chain(recipe, table, out, overrides, extra, workers, events=events)
    checks = [stage for stage in stages if stage.label != "report"]
    if dry_run:
        checks = [type(stage)(stage.label, (*stage.arguments, "--dry-run")) for stage in checks]
        raise SystemExit(run_chain(checks, dry=True))
    raise SystemExit(check_chain(checks) or run_chain(stages, events=events))
