"""`assay curate`: recipe → documents dataset."""

import json

import click

from shards.config import load_recipe
from shards.console import console, quiet_option, recipe_options


@click.command("curate")
@recipe_options
@click.option("--out", required=True, type=click.Path(), help="Folder of the dataset.")
@click.option("--workers", default=1, show_default=True, help="Worker processes on this machine.")
@click.option(
    "--range-mb",
    default=32.0,
    show_default=True,
    type=click.FloatRange(min=0.001),
    help="Size of one unit of work, in MB of text. Never changes the result.",
)
@click.option("--runner", default="", help="A Beam runner, e.g. SparkRunner. [default: in process]")
@click.option("--keep-work", is_flag=True, help="Keep the intermediate files.")
@quiet_option
@click.argument("beam_args", nargs=-1, type=click.UNPROCESSED)
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
    from pipelines.runners import JobOptions, RunnerOptions, check_policy

    options = JobOptions(
        RunnerOptions(runner, workers, beam_args), int(range_mb * 1e6), keep_work, quiet
    )
    check_policy(options.runner)
    checked = curate_recipe(load_recipe(recipe, overrides))
    if dry_run:
        from pipelines.curate.inputs import find_inputs

        found = find_inputs(checked)
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
