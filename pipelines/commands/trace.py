"""`assay trace RUN --step --rank --row`: which documents did the model see there?"""

from pathlib import Path
from typing import Any

import click

_TEXT_CHARACTERS = 600


@click.command("trace")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", required=True, type=int, help="Training step, from 1, as in the metrics.")
@click.option("--rank", default=0, show_default=True, help="Rank that had the row.")
@click.option("--row", default=0, show_default=True, help="Row of that rank's share of the batch.")
@click.option(
    "--world-size", type=click.IntRange(min=1), help="Ranks of the run [default: as recorded]."
)
@click.option(
    "--tokens", metavar="PATH", help="Tokens dataset or its URL [default: where the run read it]."
)
@click.option(
    "--documents", type=click.Path(path_type=Path), help="Its parent [default: where it was]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def trace_command(
    run: Path,
    step: int,
    rank: int,
    row: int,
    world_size: int | None,
    tokens: str | None,
    documents: Path | None,
    as_json: bool,
) -> None:
    """Say which documents the training run RUN reads in one row of one step.

    RUN may still be under way or interrupted: the steps to come are known as well. Each document is
    shown with its source file, the record's place in it, and the text that the row holds.
    """
    import msgspec

    from pipelines.trace import trace

    found = trace(run, step, rank, row, world_size=world_size, tokens=tokens, documents=documents)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
        return
    _show(found)


def _show(found: Any) -> None:
    from rich.console import Console

    out = Console(highlight=False)
    out.print(
        f"step {found.step}, rank {found.rank}, row {found.row}: global sample {found.g:,}"
        f" (epoch {found.epoch}, sample {found.sample:,} of"
        f" {f'source {found.source}' if found.source else 'the selection'}"
        f"{'' if found.draw == 'all' else f', of which {found.draw}'}),"
        f" documents: {len(found.parts)}" + ("" if found.finished else "; the run is not finished"),
        markup=False,
        soft_wrap=True,
    )
    for part in found.parts:
        document = part.document
        unit = "row" if str(document["path"]).endswith(".parquet") else "byte"
        out.print(
            f"\n[bold]{part.doc_id}[/]  tokens {part.first_token:,} to"
            f" {part.first_token + part.tokens:,}",
            soft_wrap=True,
        )
        place = f"{document['path']} at {unit} {document['position']:,}"
        name = document["id"] or document["url"] or ""
        out.print(f"  {place}  ({document['source']})  {name}", markup=False, soft_wrap=True)
        text = part.sample_text if part.sample_text is not None else document["text"] or ""
        more = "…" if len(text) > _TEXT_CHARACTERS else ""
        out.print(f"{text[:_TEXT_CHARACTERS]}{more}", markup=False, soft_wrap=True)
