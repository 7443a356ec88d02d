"""Write: a shard number → the kept shard, the ledger shard, and their counts.

Each element gathers its batch of every fragment, sorts by (content hash, doc_id), joins the
decisions, applies the filters, and writes two Parquet files. Memory is bounded by one shard.
"""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import files
from pipelines.beam import beam
from pipelines.curate import fragments
from pipelines.curate.decisions import is_valid_split
from pipelines.curate.resolve import decisions_path
from pipelines.curate.scan import ScanContext, id_bytes, sort_key
from pipelines.curate.schema import dropped_schema, kept_schema
from pipelines.curate.stats import shard_stats
from pipelines.filters import Rule, apply_rules, make_rules
from pipelines.progress import ProgressLog
from shards.errors import CorruptError
from shards.hashing import block_hashes
from shards.manifest import Counts, ShardEntry

ROW_GROUP = 8192
"""Documents per Parquet row group: fixed, since it is part of the bytes."""


class WriteContext(msgspec.Struct, frozen=True):
    """What a write worker needs: the scan's context, the decisions' folder, and the output."""

    scan: ScanContext
    resolved: str
    out: str
    results: str
    progress: str


class ShardResult(msgspec.Struct, frozen=True):
    """Sidecar of one finished shard: the two files, counts per source, and report statistics."""

    kept: ShardEntry
    dropped: ShardEntry
    sources: dict[str, Counts]
    stats: dict[str, Any]


def gather(context: ScanContext, shard: int) -> pa.Table:
    """Return the rows of one shard from all fragments, sorted by (content hash, doc_id)."""
    batches = [
        fragments.open_fragment(
            fragments.fragment_path(context.work, context.plan, index)
        ).get_batch(shard)
        for index in range(len(context.plan.ranges))
    ]
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
        first reason that applies: it could not be read, a rule, an exact or a near duplicate.
    """
    count = len(table)
    ids = sort_key(id_bytes(table["doc_id"]))
    order = np.argsort(ids)
    decided = sort_key(id_bytes(decisions["doc_id"]))
    rows = order[np.searchsorted(ids[order], decided)] if len(decided) else np.empty(0, np.int64)
    if not np.array_equal(ids[rows], decided):
        raise CorruptError("a decision names a document that is not in its shard")
    cluster: list[bytes | None] = [None] * count
    matched: list[bytes | None] = [None] * count
    jaccard: list[float | None] = [None] * count
    exact = np.zeros(count, dtype=bool)
    for row, decision in zip(rows.tolist(), decisions.to_pylist(), strict=True):
        cluster[row], matched[row] = decision["cluster"], decision["matched"]
        jaccard[row], exact[row] = decision["jaccard"], decision["exact"]

    errors = table["error"].to_pylist()
    rules = make_rules(context.recipe.filters)
    failed, measured = _apply(rules, table)
    reason: list[str | None] = [None] * count
    value: list[float | None] = [None] * count
    threshold: list[float | None] = [None] * count
    for row in range(count):
        if errors[row] is not None:
            reason[row] = errors[row]
        elif failed[row] >= 0:
            rule = rules[failed[row]]
            reason[row], value[row], threshold[row] = rule.name, measured[row], rule.threshold
        elif matched[row] is not None:
            same = exact[row] and context.recipe.dedup.exact.enabled
            reason[row] = "exact_duplicate" if same else "near_duplicate"
            value[row] = jaccard[row]
            threshold[row] = 1.0 if same else context.recipe.dedup.near.threshold
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
    return table, kept


def _apply(rules: tuple[Rule, ...], table: pa.Table) -> tuple[Any, Any]:
    columns = {rule.column: table[rule.column].fill_null(0).to_numpy() for rule in rules}
    if not rules:
        return np.full(len(table), -1), np.full(len(table), np.nan)
    return apply_rules(rules, columns)


def parquet_bytes(table: pa.Table) -> memoryview:
    """Encode a table as Parquet with settings that are fixed, because they decide the bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=["source", "split"] + (["reason"] if "reason" in table.column_names else []),
        write_statistics=True,
        store_schema=True,
    )
    return sink.getbuffer()


def count_sources(table: pa.Table, kept: npt.NDArray[np.bool_]) -> dict[str, Counts]:
    """Count one shard's documents and text bytes per source, and its drops per reason."""
    counts: dict[str, Counts] = {}
    rows = zip(
        table["source"].to_pylist(),
        table["bytes"].fill_null(0).to_pylist(),
        table["reason"].to_pylist(),
        kept.tolist(),
        strict=True,
    )
    for source, size, reason, is_kept in rows:
        count = counts.setdefault(source, Counts())
        count.read += 1
        count.bytes_read += size
        if is_kept:
            count.kept += 1
            count.bytes_kept += size
        else:
            count.dropped += 1
            count.drops[reason] = count.drops.get(reason, 0) + 1
    return counts


def shard_name(role: str, shard: int, shards: int) -> str:
    """Return a shard's path in its dataset, e.g. `kept/00000-of-00004.parquet`."""
    return f"{role}/{shard:05d}-of-{shards:05d}.parquet"


class WriteShards(beam.DoFn):
    """Write the two files of each shard number, unless they stand already; emits the number."""

    def __init__(self, context: WriteContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, shard: int) -> Iterator[int]:
        context = self._context
        result = read_result(context, shard)
        if result is None:
            result = self._write(shard)
            files.write_atomic(result_path(context, shard), msgspec.json.encode(result))
        self._log.add(
            sum(count.bytes_read for count in result.sources.values()),
            sum(count.read for count in result.sources.values()),
        )
        yield shard

    def _write(self, shard: int) -> ShardResult:
        context = self._context
        path = decisions_path(context.resolved, shard)
        decisions = pa.ipc.open_file(pa.py_buffer(files.read_bytes(path))).read_all()
        table, kept = judge(gather(context.scan, shard), decisions, context.scan)
        counts = count_sources(table, kept)
        stats = shard_stats(table, kept)
        keep = pa.array(kept)
        dropped = table.filter(pa.compute.invert(keep)).select(dropped_schema().names)
        if not context.scan.recipe.output.dropped_text:
            place = dropped.schema.get_field_index("text")
            dropped = dropped.set_column(place, "text", pa.nulls(len(dropped), pa.large_string()))
        return ShardResult(
            kept=self._file(
                "kept", shard, table.filter(keep).select(kept_schema().names), kept_schema()
            ),
            dropped=self._file("dropped", shard, dropped, dropped_schema()),
            sources=counts,
            stats=stats,
        )

    def _file(self, role: str, shard: int, table: pa.Table, schema: pa.Schema) -> ShardEntry:
        data = parquet_bytes(table.cast(schema))
        name = shard_name(role, shard, self._context.scan.plan.shards)
        files.write_atomic(files.join(self._context.out, *name.split("/")), data)
        return file_entry(name, data, len(table))


def file_entry(name: str, data: memoryview, documents: int) -> ShardEntry:
    """Describe a documents file for the manifest."""
    return ShardEntry(
        path=name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        blocks=block_hashes(data),
        documents=documents,
    )


def result_path(context: WriteContext, shard: int) -> str:
    """Return the path of a shard's sidecar."""
    return files.join(context.results, f"shard-{shard:05d}.json")


def read_result(context: WriteContext, shard: int) -> ShardResult | None:
    """Return a finished shard's sidecar, or None where it or a file it describes is not right."""
    path = result_path(context, shard)
    if not files.exists(path):
        return None
    result = msgspec.json.decode(files.read_bytes(path), type=ShardResult)
    for entry in (result.kept, result.dropped):
        place = files.join(context.out, *entry.path.split("/"))
        if not files.exists(place):
            return None
        if hashlib.sha256(files.read_bytes(place)).hexdigest() != entry.sha256:
            return None
    return result
