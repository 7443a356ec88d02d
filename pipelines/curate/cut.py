"""Cut: repeated text is taken out of a shard's kept documents, or marked in the spans ledger."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.exact import normalise_space
from dedup.lines import find_repeats, remove_spans
from dedup.substrings import Spans, removable_spans
from dedup.words import Int64, UInt8, UInt64
from pipelines.curate.reference import load_reference
from pipelines.curate.repeats import RepeatsContext, document_keys, load_table, passages_of
from pipelines.curate.schema import spans_schema
from pipelines.quality import compute_signals
from pipelines.recipe import CurateRecipe
from shards.errors import ReconcileError
from shards.text import flat

REPEATED_TEXT = "repeated_text"
"""The reason of a document of which nothing is left."""


def cut_repeats(
    table: pa.Table, kept: npt.NDArray[np.bool_], context: RepeatsContext
) -> tuple[pa.Table, npt.NDArray[np.bool_], pa.Table, dict[str, int]]:
    """Take repeated text out of the kept documents of a judged shard, or mark it.

    Returns:
        The table with new texts and signals, and `bytes_read`, the bytes before; bool[n] kept,
        without the documents of which nothing is left; the rows of the spans ledger; and counts.

    Raises:
        ReconcileError: the bytes that are left and those that were cut do not add up.
    """
    config = context.config
    rows = np.flatnonzero(kept)
    chosen = table.take(pa.array(rows))
    data, offsets = flat(chosen["text"])
    spans = _find_spans(data, offsets, document_keys(chosen), context)
    cut = config.action == "cut"
    text, bounds = data, offsets
    if cut:
        text, bounds = remove_spans(data, offsets, spans.doc, spans.start, spans.end)
        lost = int(offsets[-1] - offsets[0]) - int(bounds[-1] - bounds[0])
        if lost != int((spans.end - spans.start).sum()):
            raise ReconcileError(
                f"{lost} bytes are gone but the spans that were cut have"
                f" {int((spans.end - spans.start).sum())}; nothing was committed"
            )
    changed = np.unique(spans.doc) if cut else np.empty(0, dtype=np.int64)
    empty = changed[np.diff(normalise_space(text, bounds)[1])[changed] == 0]
    left = np.setdiff1d(changed, empty)
    action = np.full(len(chosen), "removed" if cut else "marked", dtype=object)
    action[empty] = "dropped"
    ledger = _ledger(chosen, spans, action, config.unit)
    gone = np.isin(spans.doc, empty)
    stats = {
        "documents": len(np.unique(spans.doc)),
        "spans": len(spans.doc),
        "bytes": int((spans.end - spans.start)[~gone].sum()) if cut else 0,
    }
    table = table.append_column("bytes_read", table["bytes"])
    table = _drop_empty(table, rows[empty])
    table = _with_texts(table, rows[left], text, bounds, left, context.scan.recipe)
    kept = kept.copy()
    kept[rows[empty]] = False
    return table, kept, ledger, stats


def _find_spans(data: UInt8, offsets: Int64, keys: UInt64, context: RepeatsContext) -> Spans:
    config = context.config
    anchors = load_table(context, "anchors") if config.unit == "substring" else None
    passages = passages_of(data, offsets, config, anchors)
    repeats = find_repeats(passages, keys, load_table(context, "passages"))
    if anchors is not None:
        return removable_spans(passages, repeats, keys, config.words)
    return Spans(*repeats[:6], np.zeros(len(repeats.doc), dtype=np.int64))


def _ledger(chosen: pa.Table, spans: Spans, action: npt.NDArray[np.object_], unit: str) -> pa.Table:
    """Return the rows of the spans ledger, with the text of each span and where it stays."""
    texts = chosen["text"].to_pylist()
    ids = chosen["doc_id"].to_pylist()
    raw: dict[int, bytes] = {}
    details, cuts = [], []
    # Of lines the first stays; over the first place of a substring another may be cut in turn.
    note = ", before cuts" if unit == "substring" else ""
    columns = zip(*(part.tolist() for part in spans), strict=True)
    for doc, start, end, times, key, first, skipped in columns:
        if doc not in raw:
            raw = {doc: texts[doc].encode()}
        cuts.append(raw[doc][start:end].decode(errors="replace"))
        inside = f" + {skipped} words" if skipped else ""
        details.append(f"first in {key:016x} at byte {first}{inside}, {times} times{note}")
    docs = spans.doc.tolist()
    return pa.table(
        {
            "doc_id": pa.array([ids[doc] for doc in docs], type=pa.binary(16)),
            "start": spans.start,
            "end": spans.end,
            "reason": pa.array([f"repeated_{unit}"] * len(docs), type=pa.string()),
            "action": pa.array([action[doc] for doc in docs], type=pa.string()),
            "detail": pa.array(details, type=pa.string()),
            "text": pa.array(cuts, type=pa.large_string()),
        },
        schema=spans_schema(),
    )


def _drop_empty(table: pa.Table, rows: Int64) -> pa.Table:
    """Give documents of which nothing is left their reason; the ledger keeps their text."""
    mask = np.zeros(len(table), dtype=bool)
    mask[rows] = True
    for name, value in (("reason", REPEATED_TEXT), ("value", 1.0), ("threshold", 1.0)):
        place = table.schema.get_field_index(name)
        column = table[name].combine_chunks()
        filled = pa.compute.if_else(pa.array(mask), pa.scalar(value, type=column.type), column)
        table = table.set_column(place, name, filled)
    return table


def _with_texts(
    table: pa.Table,
    rows: Int64,
    text: UInt8,
    bounds: Int64,
    docs: Int64,
    recipe: CurateRecipe,
) -> pa.Table:
    """Put in the new texts of `rows`, which are documents `docs` of (text, bounds), and measure."""
    if not len(rows):
        return table
    mask = np.zeros(len(table), dtype=bool)
    mask[rows] = True
    raw = text.tobytes()
    new = [raw[bounds[doc] : bounds[doc + 1]].decode() for doc in docs.tolist()]
    texts = pa.array(new, type=pa.large_string())
    measured: dict[str, Any] = compute_signals(
        *flat(texts), recipe.signals, load_reference(recipe.signals)
    )
    for name, values in {"text": texts, **measured}.items():
        column = table[name].combine_chunks()
        replaced = pa.compute.replace_with_mask(
            column, pa.array(mask), pa.array(values, type=column.type)
        )
        table = table.set_column(table.schema.get_field_index(name), name, replaced)
    return table
