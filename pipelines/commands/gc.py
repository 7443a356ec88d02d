"""`assay gc`: remove what killed jobs left in a dataset's folder."""

import click

from shards.console import console


@click.command("gc")
@click.argument("dataset", type=click.Path())
@click.option("--unfinished", is_flag=True, help="Also remove a job that has not ended.")
def gc_command(dataset: str, unfinished: bool) -> None:
    """Remove what killed jobs left in the folder DATASET: half-written files and work folders.

    Shards and manifest are never touched. Where there is no manifest yet, the work folder is what
    the next run resumes from, and stays unless --unfinished is given.
    """
    from pipelines.commit import collect_garbage
    from shards.inspect import human_bytes

    removed, size = collect_garbage(dataset, unfinished=unfinished)
    for path in removed:
        console.print(path, markup=False, soft_wrap=True)
    click.echo(f"{dataset}: removed {len(removed)} file(s), {human_bytes(size)}")
