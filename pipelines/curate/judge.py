"""Judge: every row of a shard gets its split, its cluster, and the first reason to drop it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import NearConfig
from pipelines.curate.decisions import is_valid_split
from pipelines.curate.resolved import read_decisions
from pipelines.curate.scan import ScanContext, id_bytes, sort_key
from pipelines.curate.schema import DETAIL, FOUND, OVERLAP, spans_schema
from pipelines.filters import Rule, apply_rules, make_rules, rule_columns
from pipelines.quality import known_signals
from shards.errors import CorruptError

CONTAMINATED = "contaminated"
"""The reason of a document that holds text of evaluation items."""


def judged_shard(
    context: ScanContext, resolved: str, shard: int
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Gather and judge the rows of a shard; see `judge`."""
    return judge(gather(context, shard), read_decisions(resolved, shard), context)


def gather(context: ScanContext, shard: int) -> pa.Table:
    """Return the rows of one shard from all fragments, sorted by (content hash, doc_id)."""
    batches = [context.open(number).shard(shard) for number in range(len(context.fragments))]
    table = pa.Table.from_batches(batches)
    order = np.lexsort(
        (sort_key(id_bytes(table["doc_id"])), sort_key(id_bytes(table["content_hash"])))
    )
    return table.take(pa.array(order))


def judge(
    table: pa.Table, decisions: pa.Table, context: ScanContext
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Decide every row of a shard.

    Args:
        table: fragment rows.
        decisions: rows of `DECISION_SCHEMA` whose doc_ids are a subset of the table's.

    Returns:
        The table with `split`, `cluster` and the evidence columns, and bool[n] kept. A row has the
        first reason that applies: it could not be read, a rule, an evaluation item in it, an
        exact or a near duplicate.
    """
    count, near = len(table), context.recipe.dedup.near
    ids = sort_key(id_bytes(table["doc_id"]))
    order = np.argsort(ids)
    decided = sort_key(id_bytes(decisions["doc_id"]))
    rows = order[np.searchsorted(ids[order], decided)] if len(decided) else np.empty(0, np.int64)
    if not np.array_equal(ids[rows], decided):
        raise CorruptError("a decision names a document that is not in its shard")
    cluster: list[bytes | None] = [None] * count
    matched: list[bytes | None] = [None] * count
    similarity: list[float | None] = [None] * count
    found_by: list[str | None] = [None] * count
    jaccard: list[float | None] = [None] * count
    exact = np.zeros(count, dtype=bool)
    for row, decision in zip(rows.tolist(), decisions.to_pylist(), strict=True):
        cluster[row], matched[row] = decision["cluster"], decision["matched"]
        jaccard[row], exact[row] = decision["jaccard"], decision["exact"]
        similarity[row], found_by[row] = decision["similarity"], _duplicate_detail(decision, near)

    errors, detail = table["error"].to_pylist(), table["detail"].to_pylist()
    contamination = context.recipe.dedup.contamination
    overlap = table[OVERLAP].to_pylist() if contamination.drops else [None] * count
    items = table[DETAIL].to_pylist()
    rules = make_rules(context.recipe.filters, known_signals(context.recipe.signals))
    failed, measured = _apply(rules, table)
    reason: list[str | None] = [None] * count
    value: list[float | None] = [None] * count
    threshold: list[float | None] = [None] * count
    for row in range(count):
        if errors[row] is not None:
            reason[row] = errors[row]
        elif failed[row] >= 0:
            rule = rules[failed[row]]
            reason[row], threshold[row] = rule.name, rule.threshold
            value[row] = None if rule.threshold is None else measured[row]
        elif overlap[row] is not None:
            reason[row], value[row] = CONTAMINATED, overlap[row]
            threshold[row], detail[row] = contamination.overlap, items[row]
        elif matched[row] is not None:
            same = exact[row] and context.recipe.dedup.exact.enabled
            reason[row] = "exact_duplicate" if same else "near_duplicate"
            value[row], detail[row] = similarity[row], found_by[row]
            threshold[row] = 1.0 if same else near.threshold
    kept = np.array([item is None for item in reason], dtype=bool)
    doc_ids = table["doc_id"].to_pylist()
    split = context.recipe.split
    held_out = is_valid_split(
        [own or doc for own, doc in zip(cluster, doc_ids, strict=True)],
        split.valid_fraction,
        split.salt,
    )
    added = {
        "split": pa.array(np.where(held_out, "valid", "train"), type=pa.string()),
        "cluster": pa.array(cluster, type=pa.binary(16)),
        "reason": pa.array(reason, type=pa.string()),
        "value": pa.array(value, type=pa.float64()),
        "threshold": pa.array(threshold, type=pa.float64()),
        "matched": pa.array(matched, type=pa.binary(16)),
        "jaccard": pa.array(jaccard, type=pa.float32()),
    }
    for name, column in added.items():
        table = table.append_column(name, column)
    place = table.schema.get_field_index("detail")
    return table.set_column(place, "detail", pa.array(detail, type=pa.string())), kept


def _duplicate_detail(decision: dict[str, Any], near: NearConfig) -> str:
    """Say how a duplicate was found: the measure if it is not Jaccard, the band, the cluster."""
    parts = [f"cluster of {decision['size']}"]
    if decision["band"] is not None:
        parts = [f"band {decision['band']}", *parts]
        if near.measure != "jaccard":
            parts = [f"{near.measure} {decision['similarity']:.4f}", *parts]
    return ", ".join(parts)


def marked_spans(table: pa.Table) -> pa.Table:
    """Return the rows of the spans ledger for evaluation items in a judged shard."""
    rows = []
    found = table.filter(table[FOUND].is_valid()).select(
        ["doc_id", "text", "reason", FOUND, DETAIL]
    )
    for record in found.to_pylist():
        raw = record["text"].encode()
        rows += [
            {
                "doc_id": record["doc_id"],
                **span,
                "reason": CONTAMINATED,
                "action": "dropped" if record["reason"] == CONTAMINATED else "marked",
                "detail": record[DETAIL],
                "text": raw[span["start"] : span["end"]].decode(errors="replace"),
            }
            for span in record[FOUND]
        ]
    return pa.Table.from_pylist(rows, schema=spans_schema())


def _apply(rules: tuple[Rule, ...], table: pa.Table) -> tuple[Any, Any]:
    names = {column for rule in rules for column in rule.columns}
    columns = rule_columns(table, sorted(names))
    if not rules:
        return np.full(len(table), -1), np.full(len(table), np.nan)
    return apply_rules(rules, columns)
