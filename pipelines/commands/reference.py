"""`assay reference`: documents that somebody vouches for → one file that others are measured by."""

import click

from shards.console import console, recipe_options


@click.command("reference")
@recipe_options
@click.option("--out", required=True, type=click.Path(), help="File to write.")
def reference_command(recipe: str, overrides: tuple[str, ...], dry_run: bool, out: str) -> None:
    """Train the reference of a recipe's [signals.reference] table and save it.

    `assay curate` does so by itself in every run; with `signals.reference.model` it reads the file
    instead.
    """
    from pipelines.recipe import curate_recipe
    from shards.config import load_recipe

    checked = curate_recipe(load_recipe(recipe, overrides))
    if dry_run:
        console.print("recipe is valid; nothing trained")
        return
    from pipelines.curate.reference import save_reference

    click.echo(f"saved {out}: signals.reference.hash = {save_reference(checked, out)}")
