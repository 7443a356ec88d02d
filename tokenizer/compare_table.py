"""A comparison of tokenizers as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokenizer.compare import Comparison, Row

_MOST = 40


def render(found: Comparison) -> RenderableType:
    """Return the vocabularies, then a line for each source and language, largest first.

    `lost` counts the documents whose tokens do not spell their text.
    """
    parts: list[RenderableType] = [_vocabularies(found)]
    if found.total:
        parts += [Text(), _rows("source", {**found.sources, "all": found.total})]
    if found.languages:
        parts += [Text(), _rows("language", found.languages)]
    return Group(*parts)


def _vocabularies(found: Comparison) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for letter, one in (("A", found.a), ("B", found.b)):
        facts = f"{one.vocab_size:,} pieces, pieces hash {one.pieces_hash[:12]}"
        table.add_row(letter, Text(one.name), facts)
    same = found.a.pieces_hash == found.b.pieces_hash
    both = "they encode alike" if same else f"{found.shared_pieces:,} pieces are in both"
    table.add_row("", both)
    return table


def _rows(what: str, rows: dict[str, Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(what, no_wrap=True, vertical="bottom")
    for name in (
        *("docu-\nments", "bytes/\ntok A", "B", "B : A"),  # two lines leave room for names
        *("tok/\nword A", "B", "lost\nA", "B"),
    ):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    ranked = sorted(rows.items(), key=lambda item: (-item[1].bytes, item[0]))
    for name, row in ranked[:_MOST]:
        a, b = row.a, row.b
        ratio = f"{b.bytes_per_token / a.bytes_per_token:.3f}" if a.bytes_per_token else "-"
        table.add_row(
            Text(name),
            f"{row.documents:,}",
            *(f"{a.bytes_per_token:.3f}", f"{b.bytes_per_token:.3f}", ratio),
            *(f"{a.fertility:.3f}", f"{b.fertility:.3f}"),
            *(_failures(a.failures), _failures(b.failures)),
        )
    if len(ranked) > _MOST:
        table.add_row(Text(f"… and {len(ranked) - _MOST} more (--json has all)", "dim"))
    return table


def _failures(count: int) -> Text:
    return Text(f"{count:,}", "red" if count else "")
