"""The commands `inspect` and `verify`. Imports stay light: the work is imported when it starts."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from shards.console import console, quiet_option, run


@click.command("inspect")
@click.argument("dataset", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
def inspect_command(dataset: str, as_json: bool) -> None:
    """Show what a dataset holds: documents, drops by reason, sources, tokens, shards.

    Reads the manifest only; `assay verify` reads the shards.
    """
    import msgspec

    from shards.inspect import render, summary
    from shards.manifest import read_manifest

    manifest = read_manifest(dataset)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary(manifest)), indent=2))
    else:
        Console(highlight=False).print(render(manifest))


@click.command("verify")
@click.argument("dataset", type=click.Path())
@click.option("--quick", is_flag=True, help="Check names, sizes and counts; read no shard.")
@quiet_option
def verify_command(dataset: str, quick: bool, quiet: bool) -> None:
    """Check every byte of a dataset against its manifest.

    Exits 0 with one line that says what was verified, or 1 with a line for each problem, which
    names the file and, for bytes that changed, the 1 MiB block.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from shards.inspect import human_bytes
    from shards.manifest import read_manifest
    from shards.verify import verify

    content = read_manifest(dataset).content
    entries = [entry for group in content.shards.values() for entry in group]
    size = sum(entry.bytes for entry in entries)
    columns = (TextColumn("verify"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    hidden = quick or quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("verify", total=size)
        problems = verify(dataset, quick=quick, progress=lambda done: bar.advance(task, done))
    for problem in problems:
        click.echo(f"{Path(dataset) / str(problem)}")
    if problems:
        files = len({problem.path for problem in problems})
        console.print(
            f"[bold red]error:[/] {escape(dataset)}: problems: {len(problems)}, files: {files};"
            " restore them or make the dataset again",
            soft_wrap=True,
        )
        sys.exit(1)
    blocks = sum(len(entry.blocks) for entry in entries)
    what = "names, sizes and counts only" if quick else f"{blocks:,} blocks, {human_bytes(size)}"
    click.echo(f"{dataset}: verified {len(entries)} shards ({what})")


@click.group()
def main() -> None:
    """Datasets on disk: look into them and verify them."""


main.add_command(inspect_command)
main.add_command(verify_command)


def program() -> None:
    """Run `python -m shards`."""
    run(main, "python -m shards")
