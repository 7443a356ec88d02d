"""The commands `inspect`, `verify`, `pack` and `unpack`.

Imports stay light: the work is imported when it starts.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from shards.console import console, quiet_option, run

if TYPE_CHECKING:
    from shards.manifest import Manifest


@click.command("inspect")
@click.argument("dataset", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
def inspect_command(dataset: str, as_json: bool) -> None:
    """Show what a dataset holds: documents, drops by reason, sources, tokens, shards.

    DATASET is a folder, or a URL that fsspec knows (s3://…, gs://…).
    Reads the manifest only; `assay verify` reads the shards.
    """
    import msgspec

    from shards.inspect import render, summary
    from shards.remote import open_manifest

    manifest = open_manifest(dataset)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary(manifest)), indent=2))
    else:
        Console(highlight=False).print(render(manifest))


@click.command("verify")
@click.argument("dataset", type=click.Path())
@click.option("--quick", is_flag=True, help="Check names, sizes and a sample of blocks.")
@quiet_option
def verify_command(dataset: str, quick: bool, quiet: bool) -> None:
    """Check every byte of a dataset against its manifest, on all cores.

    DATASET is a folder, or a URL that fsspec knows (s3://…, gs://…): then each block is fetched, a
    bad one again, and nothing is kept.

    With --quick, up to 16 blocks of each shard, most of them drawn at random: it finds files that
    are missing, cut off or overwritten, and only some of the flipped bits.

    Exits 0 with one line that says what was verified, or 1 with a line for each problem, which
    names the file and, for bytes that changed, the 1 MiB block.
    """
    from shards.inspect import human_bytes
    from shards.manifest import made_as, remedy
    from shards.remote import open_manifest
    from shards.verify import QUICK_BLOCKS, verify

    manifest = open_manifest(dataset)
    content, size = manifest.content, _size(manifest)
    entries = [entry for group in content.shards.values() for entry in group]
    with _bar("verify", size, quick or quiet) as progress:
        problems = verify(dataset, quick=quick, progress=progress)
    for problem in problems:
        click.echo(f"{dataset.rstrip('/')}/{problem}")
    if problems:
        files = len({problem.path for problem in problems})
        console.print(
            f"[bold red]error:[/] {escape(dataset)}: problems: {len(problems)}, files: {files};"
            f" {remedy(made_as(content), files)}",
            soft_wrap=True,
        )
        sys.exit(1)
    blocks = sum(len(entry.blocks) for entry in entries)
    what = f"{blocks:,} blocks, {human_bytes(size)}"
    if quick:
        sampled = sum(min(len(entry.blocks), QUICK_BLOCKS) for entry in entries)
        what = f"sizes, and a sample of {sampled:,} of {blocks:,} blocks"
    click.echo(f"{dataset}: verified {len(entries)} shards ({what})")


@click.command("pack")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--level", default=3, show_default=True, type=click.IntRange(1, 19), help="zstd's.")
@quiet_option
def pack_command(dataset: Path, out: Path, level: int, quiet: bool) -> None:
    """Compress a dataset for transport: every file as zstd, each block checked on the way.

    `assay unpack` gives the same dataset back.
    """
    from shards.inspect import human_bytes
    from shards.manifest import read_manifest
    from shards.transport import pack

    size = _size(read_manifest(dataset))
    with _bar("pack", size, quiet) as progress:
        manifest, packed = pack(dataset, out, level=level, progress=progress)
    click.echo(
        f"packed {out}: dataset {manifest.dataset_id}, {human_bytes(size)} of shards in"
        f" {human_bytes(packed)}"
    )


@click.command("unpack")
@click.argument("packed", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@quiet_option
def unpack_command(packed: Path, out: Path, quiet: bool) -> None:
    """Make a dataset out of its transport form; each block is checked before it is kept."""
    from shards.inspect import human_bytes
    from shards.transport import unpack

    with _bar("unpack", None, quiet) as progress:
        manifest = unpack(packed, out, progress=progress)
    click.echo(
        f"unpacked {out}: dataset {manifest.dataset_id}, {human_bytes(_size(manifest))} verified"
    )


def _size(manifest: "Manifest") -> int:
    """Return the bytes of all shards."""
    return sum(entry.bytes for group in manifest.content.shards.values() for entry in group)


@contextmanager
def _bar(name: str, size: int | None, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of bytes on a terminal; yields what to call with numbers of bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    disable = hidden or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task(name, total=size)
        yield lambda done: bar.advance(task, done)


@click.group()
def main() -> None:
    """Datasets on disk: look into them, verify them, carry them."""


main.add_command(inspect_command)
main.add_command(verify_command)
main.add_command(pack_command)
main.add_command(unpack_command)


def program() -> None:
    """Run `python -m shards`."""
    run(main, "python -m shards")
