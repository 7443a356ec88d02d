"""`assay curate`: recipe → documents dataset."""

import json
import math
from typing import TYPE_CHECKING

import click

from pipelines import worker
from pipelines.commands.options import dataset_event, job_options, runner_options
from shards.config import load_recipe
from shards.console import console, quiet_option, recipe_options

if TYPE_CHECKING:
    from pipelines.recipe import CurateRecipe


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
@click.option(
    "--rehash",
    is_flag=True,
    help="Read every input again, also those of unchanged size, time and inode.",
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
    rehash: bool,
    runner: str,
    keep_work: bool,
    quiet: bool,
    events: bool,
    beam_args: tuple[str, ...],
) -> None:
    """Read raw corpora, measure, filter and deduplicate; write kept shards and a ledger.

    RECIPE is a TOML file. Options after `--` go to Beam.
    """
    if workers > 1 and not dry_run:
        worker.warm("pipelines.curate.job")  # it imports Beam while this process does
    from pipelines.recipe import curate_recipe, hashed_recipe

    if math.isnan(range_mb):  # which lies in every range, to click
        raise click.BadParameter("nan is not a size", param_hint="--range-mb")
    options = job_options(
        workers,
        runner,
        beam_args,
        keep_work=keep_work,
        quiet=quiet,
        events=events,
        rehash=rehash,
        range_bytes=int(range_mb * 1e6),
    )
    checked = curate_recipe(load_recipe(recipe, overrides))
    if dry_run:
        facts = "; ".join(_check(checked, out))
        console.print(f"recipe is valid; {facts}; nothing run", markup=False, soft_wrap=True)
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
    there = sorted(manifest.content.sources)
    absent = [name for name in checked.dedup.near.sources if name not in there]
    if absent:
        console.print(
            f"warning: dedup.near.sources: no document is from {', '.join(absent)}; there are"
            f" {', '.join(there[:8])}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if events:
        dataset_event(manifest, out, ran=ran)
        return
    click.echo(
        f"{'curated' if ran else 'up to date:'} {out}: dataset {manifest.dataset_id},"
        f" {total.read:,} documents read = {total.kept:,} kept + {total.dropped:,} dropped"
    )


def _check(recipe: "CurateRecipe", out: str) -> list[str]:
    """Check all that a job reads before its corpus, and say what there is.

    Raises:
        InputError: an input that is missing or inside `out`; an evaluation set that is missing or
            cannot be read.
        DatasetError: an earlier dataset that this recipe's can not be held against.
    """
    from pipelines.curate.against import check_index, find_earlier
    from pipelines.curate.evaluation import find_evaluation, set_stats
    from pipelines.curate.inputs import check_apart, find_inputs
    from pipelines.recipe import definitions

    found = find_inputs(recipe)
    check_apart(found, out)
    size = sum(item[1] for item in found)
    facts = [f"{len(found)} input file(s), {size / 1e6:,.1f} MB"]
    contamination = recipe.dedup.contamination
    for name, counts in set_stats(find_evaluation(contamination), contamination).items():
        facts.append(
            f"evaluation set {name}: {counts['items']:,} items, {counts['too_short']:,} too short"
        )
    earlier = find_earlier(recipe.dedup, definitions(recipe.signals))
    check_index(earlier)
    if earlier.datasets:
        facts.append(
            f"held against {len(earlier.datasets)} dataset(s), {earlier.readable:,} documents"
        )
    return facts
