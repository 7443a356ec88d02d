"""`assay reproduce`: make a dataset again and compare the ids."""

import sys

import click

from pipelines.commands.options import job_options, workers_option
from shards.console import console, quiet_option


@click.command("reproduce")
@click.argument("dataset", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder of the new dataset.")
@workers_option
@quiet_option
def reproduce_command(dataset: str, out: str, workers: int, quiet: bool) -> None:
    """Run the job that made DATASET again, from what its manifest says, and compare the ids.

    Inputs must lie where they lay then. Exits 0 if the new dataset has the same id, else 1.
    """
    from pipelines.reproduce import reproduce

    options = job_options(workers, "", (), keep_work=False, quiet=quiet)
    stated, found = reproduce(dataset, out, options)
    if stated != found:
        console.print(
            f"[bold red]error:[/] {out}: dataset {found}, but {stated} was to be reproduced",
            soft_wrap=True,
        )
        sys.exit(1)
    click.echo(f"reproduced {dataset}: dataset {found} in {out}")
