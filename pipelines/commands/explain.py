"""`assay explain DATASET DOC_ID`: why was this document kept or dropped, and where is it from."""

import difflib
import json
from typing import Any

import click

from shards.errors import CorruptError, DatasetError

_WORDS_COMPARED = 5000
"""difflib's time grows with the square of the length."""

_SPANS_SHOWN = 10

_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(127, 160))
    if chr(code) not in "\n\t"
}
"""What a document must not send to the terminal: control characters, ESC among them."""


@click.command("explain")
@click.argument("dataset", type=click.Path())
@click.argument("doc_id", required=False)
@click.option("--reason", help="List the documents that were dropped for this reason.")
@click.option("--limit", default=20, show_default=True, help="Rows of that list.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one object (a line each for lists)."
)
def explain_command(
    dataset: str, doc_id: str | None, reason: str | None, limit: int, as_json: bool
) -> None:
    """Say why the document DOC_ID of the documents dataset DATASET was kept or dropped.

    DOC_ID is 32 hex digits (or the first digits, if no other document begins with them), or the
    record's own id. With --reason instead, list what was dropped for it.
    """
    from pipelines.lookup import Lookup

    if (doc_id is None) == (reason is None):
        raise click.UsageError("give a DOC_ID, or --reason to list documents")
    lookup = Lookup(dataset)
    if reason is not None:
        for row in lookup.dropped_for(reason, limit):
            click.echo(json.dumps(row, ensure_ascii=False) if as_json else _line(lookup, row))
        return
    found = lookup.find(str(doc_id))
    matched, spans = _matched(lookup, found), lookup.spans(found["doc_id"])
    if as_json:
        facts = {"document": found, "matched": matched, "spans": spans}
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    _show(lookup, found, matched, spans)


def _matched(lookup: Any, found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the kept document that a duplicate matched, None if an earlier dataset has it."""
    if not found.get("matched"):
        return None
    try:
        return dict(lookup.by_doc_id(found["matched"]))
    except CorruptError:
        raise
    except DatasetError:
        if not lookup.manifest.content.parents:
            raise
        return None


def _line(lookup: Any, row: dict[str, Any]) -> str:
    place = f"{row['path']} at {lookup.position_unit(row)} {row['position']}"
    line = f"{row['doc_id']}  {verdict(row)}  {place}  {row['detail'] or row['url'] or ''}"
    return line.translate(_CONTROLS).rstrip()


def _show(
    lookup: Any,
    found: dict[str, Any],
    matched: dict[str, Any] | None,
    spans: list[dict[str, Any]],
) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    out.print(f"[bold]{found['doc_id']}[/]  {_plain(verdict(found))}", soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("file", f"{found['path']} at {lookup.position_unit(found)} {found['position']:,}"),
        ("record id", found["id"]),
        ("source", found["source"]),
        ("url", found["url"]),
        ("split", found["split"]),
        ("cluster", found["cluster"]),
        ("detail", found.get("detail")),
    ):
        if value is not None:
            table.add_row(name, _plain(value))
    out.print(table)
    signals = Table(box=None, padding=(0, 2, 0, 0))
    signals.add_column("signal")
    signals.add_column("this", justify="right")
    if matched:
        signals.add_column("kept", justify="right")
    for name in lookup.signals:
        values = [found[name]] + ([matched[name]] if matched else [])
        signals.add_row(name, *(_number(value) for value in values))
    out.print(signals)
    for span in spans[:_SPANS_SHOWN]:
        text = " ".join((span["text"] or "").split())[:80]
        out.print(
            f"[bold]{_plain(span['action'])}[/] bytes {span['start']:,} to {span['end']:,}:"
            f" {_plain(span['reason'])}, {_plain(span['detail'])}: “{_plain(text)}”",
            soft_wrap=True,
        )
    if len(spans) > _SPANS_SHOWN:
        out.print(f"and {len(spans) - _SPANS_SHOWN} more spans (--json has all)")
    if found.get("matched") and not matched:
        out.print(f"\nwhat it matched is in {_plain(lookup.earlier())}", soft_wrap=True)
    if matched:
        out.print(
            f"\n[bold]matched[/] {matched['doc_id']}: {_plain(matched['path'])} at"
            f" {lookup.position_unit(matched)} {matched['position']:,}"
            f" ({_plain(matched['source'])}, {_plain(matched['url'] or matched['id'])})",
            soft_wrap=True,
        )
        if found["text"] and matched["text"]:
            out.print(r"[bold]differences[/] \[-kept-] \[+this+]")
            out.print(_plain(difference(matched["text"], found["text"])), soft_wrap=True)
    elif found["text"]:
        out.print("\n[bold]text[/]")
        out.print(_plain(found["text"][:1000]), soft_wrap=True)


def _plain(value: Any) -> str:
    """Show what came from a document as it is: neither rich nor the terminal obeys it."""
    from rich.markup import escape

    return escape(str(value).translate(_CONTROLS))


def verdict(found: dict[str, Any]) -> str:
    """Say in one line what was decided and by what measure."""
    reason = found.get("reason")
    if reason is None:
        return "kept"
    if found.get("matched"):
        # By another measure than Jaccard, the detail names it and `value` holds it.
        by = f"Jaccard {found['jaccard']:.4f}"
        if found["value"] != found["jaccard"]:
            by = f"similarity {found['value']:.4f}, {by}"
        return f"dropped: {reason} of {found['matched']}, {by} (threshold {found['threshold']:g})"
    if found.get("value") is not None:
        return f"dropped: {reason}, measured {found['value']:g}, threshold {found['threshold']:g}"
    return f"dropped: {reason}"


def difference(kept: str, dropped: str, *, context: int = 5, limit: int = 20) -> str:
    """Describe how two texts differ by word, white space aside: at most `limit` places, one a line.

    `[-…-]` stands in the kept text only, `[+…+]` in this one, with `context` words around.
    """
    left, right = kept.split()[:_WORDS_COMPARED], dropped.split()[:_WORDS_COMPARED]
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(context)
    lines = []
    for group in blocks:
        words = []
        for kind, a, b, c, d in group:
            if kind == "equal":
                words += left[a:b]
                continue
            words += [f"[-{' '.join(left[a:b])}-]"] if b > a else []
            words += [f"[+{' '.join(right[c:d])}+]"] if d > c else []
        lines.append(f"… {' '.join(words)} …")
    if not lines:
        return "none but white space"
    more = [f"and {len(lines) - limit} more places"] if len(lines) > limit else []
    return "\n".join([*lines[:limit], *more])


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
