"""`assay curate`: recipe → documents dataset."""

import json
import math

import click

from pipelines.commands.options import job_options, runner_options
from shards.config import load_recipe
from shards.console import console, quiet_option, recipe_options


@click.command("curate")
@recipe_options
@click.option("--out", required=True, type=click.Path(), help="Folder of the dataset.")
@click.option(
    "--range-mb",
    default=32.0,
    show_default=True,
    type=click.FloatRange(min=0.001, max=1e6),
    help="Size of one unit of work, in MB of text. Never changes the result.",
)
@runner_options
@quiet_option
def curate_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    out: str,
    workers: int,
    range_mb: float,
    runner: str,
    keep_work: bool,
    quiet: bool,
    beam_args: tuple[str, ...],
) -> None:
    """Read raw corpora, measure, filter and deduplicate; write kept shards and a ledger.

    RECIPE is a TOML file. Options after `--` go to Beam.
    """
    from pipelines.recipe import curate_recipe, hashed_recipe

    if math.isnan(range_mb):  # which lies in every range, to click
        raise click.BadParameter("nan is not a size", param_hint="--range-mb")
    options = job_options(
        workers,
        runner,
        beam_args,
        keep_work=keep_work,
        quiet=quiet,
        range_bytes=int(range_mb * 1e6),
    )
    checked = curate_recipe(load_recipe(recipe, overrides))
    if dry_run:
        from pipelines.curate.inputs import check_apart, find_inputs

        found = find_inputs(checked)
        check_apart(found, out)
        size = sum(item[1] for item in found)
        console.print(
            f"recipe is valid; {len(found)} input file(s), {size / 1e6:,.1f} MB; nothing run"
        )
        click.echo(json.dumps(hashed_recipe(checked), indent=2))
        return
    from pipelines.curate.job import curate
    from pipelines.readers import ERRORS

    manifest, ran = curate(checked, out, options)
    total = manifest.content.total
    unread = {name: count for name, count in total.drops.items() if name in ERRORS}
    if unread:
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(unread.items()))
        console.print(
            f"[yellow]warning:[/] {sum(unread.values()):,} record(s) could not be read ({reasons});"
            f" file and position of each: assay explain {out} --reason {min(unread)}",
            soft_wrap=True,
        )
    click.echo(
        f"{'curated' if ran else 'up to date:'} {out}: dataset {manifest.dataset_id},"
        f" {total.read:,} documents read = {total.kept:,} kept + {total.dropped:,} dropped"
    )
