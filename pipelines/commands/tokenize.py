"""`assay tokenize`: documents dataset → tokens dataset."""

import click

from pipelines import worker
from pipelines.commands.options import dataset_event, job_options, runner_options
from shards.config import decode, load_recipe
from shards.console import console, quiet_option, recipe_options


@click.command("tokenize")
@recipe_options
@click.option("--data", required=True, type=click.Path(), help="Folder of the curated dataset.")
@click.option("--tokenizer", required=True, type=click.Path(), help="Tokenizer folder or model.")
@click.option("--out", required=True, type=click.Path(), help="Folder of the tokens dataset.")
@runner_options
@quiet_option
def tokenize_command(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    data: str,
    tokenizer: str,
    out: str,
    workers: int,
    runner: str,
    keep_work: bool,
    quiet: bool,
    events: bool,
    beam_args: tuple[str, ...],
) -> None:
    """Encode a curated dataset into Arrow token shards; every document is checked to come back.

    RECIPE is a TOML file with a [tokenize] table. Options after `--` go to Beam.
    """
    if workers > 1 and not dry_run:
        worker.warm("pipelines.tokenize")  # it imports Beam while this process does
    from pipelines.tokenize import TokenizeConfig, tokenize

    options = job_options(
        workers, runner, beam_args, keep_work=keep_work, quiet=quiet, events=events
    )
    config = decode(load_recipe(recipe, overrides), "tokenize", TokenizeConfig)
    if dry_run:
        console.print(f"recipe is valid; would tokenize {config.documents} documents; nothing run")
        return
    manifest, ran = tokenize(data, tokenizer, out, config, options)
    if events:
        dataset_event(manifest, out, ran=ran)
        return
    stats = manifest.content.stats
    click.echo(
        f"{'tokenized' if ran else 'up to date:'} {out}: dataset {manifest.dataset_id},"
        f" {stats['documents']:,} documents, {manifest.content.total.tokens:,} tokens,"
        f" {stats['bytes_per_token']:.2f} bytes/token"
    )
