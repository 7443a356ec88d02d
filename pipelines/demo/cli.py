"""`assay corpus`: build the demo corpus on its own."""

from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.demo.corpus import build_corpus
from shards.console import console, quiet_option


@click.command("corpus")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@quiet_option
def corpus_command(out: Path, quiet: bool) -> None:
    """Build a corpus from the text that the installed packages carry."""
    bar = Progress(
        TextColumn("corpus"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet,
        transient=True,
    )
    with bar:
        task = bar.add_task("corpus")
        stats = build_corpus(
            out, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    for kind, count in stats["kinds"].items():
        click.echo(f"{kind:<12}{count['documents']:>8,} documents {count['bytes'] / 1e6:>7.1f} MB")
    click.echo(f"{'all':<12}{stats['documents']:>8,} documents {stats['bytes'] / 1e6:>7.1f} MB")
