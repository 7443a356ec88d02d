"""`assay report`: the folders of a chain → one HTML file."""

import contextlib
from pathlib import Path

import click

from shards.console import console, quiet_option


@click.command("report")
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="The HTML file. [default: ROOT/report.html]"
)
@quiet_option
def report_command(root: Path, out: Path | None, quiet: bool) -> None:
    """Write what the stages of the chain in ROOT found as one self-contained HTML file.

    ROOT holds what `assay run` leaves: curated, tokenizer, tokens and runs. What is missing is
    named as not run.
    """
    from pipelines.report.data import gather
    from pipelines.report.key import is_sealed, report_key, seal
    from pipelines.report.parts import read_parts
    from pipelines.report.render import render
    from shards.atomic import write_atomic
    from shards.errors import PlatformError
    from shards.inspect import human_bytes

    path = out or root / "report.html"
    read_parts(root)  # says what is wrong with the chain, if anything is
    key = report_key(root)
    if is_sealed(path, key):
        click.echo(f"up to date: report {path}: {human_bytes(path.stat().st_size)}")
        return
    working = contextlib.nullcontext() if quiet else console.status("measuring and drawing")
    with working:
        html = seal(render(gather(root)).encode(), key)
    try:
        write_atomic(path, html)
    except OSError as error:
        raise PlatformError(f"{path}: cannot be written: {error.strerror}") from None
    click.echo(f"report {path}: {human_bytes(len(html))}, one file, no network needed")
