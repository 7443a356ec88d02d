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
from pipelines.commit import is_whole
from pipelines.context import Context
from pipelines.curate.against import INDEX_ROW_GROUP, index_schema, index_table
from pipelines.curate.cut import cut_repeats
from pipelines.curate.judge import judged_shard, marked_spans
from pipelines.curate.repeats import RepeatsContext
from pipelines.curate.scan import ScanContext
from pipelines.curate.schema import dropped_schema, kept_schema, spans_schema
from pipelines.curate.stats import shard_stats
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.hashing import block_hashes
from shards.manifest import Counts, ShardEntry

ROW_GROUP = 8192
"""Documents per Parquet row group: fixed, since it is part of the bytes."""


class WriteContext(Context, frozen=True):
    """What a write worker needs: the scan's context, the decisions' folder, and the output."""

    scan: ScanContext
    resolved: str
    out: str
    results: str
    progress: str

    @property
    def home(self) -> str:
        """The folder of sidecars."""
        return self.results

    @property
    def repeats(self) -> RepeatsContext:
        """What is needed to take repeated text out."""
        return RepeatsContext(self.scan, self.resolved, self.progress)


class ShardResult(msgspec.Struct, frozen=True):
    """Sidecar of one finished shard: its files, counts per source, and report statistics.

    `spans` is None where the recipe asks for nothing that looks inside documents, `index` where it
    asks for no signature index.
    """

    kept: ShardEntry
    dropped: ShardEntry
    sources: dict[str, Counts]
    stats: dict[str, Any]
    spans: ShardEntry | None = None
    index: ShardEntry | None = None

    @property
    def entries(self) -> list[ShardEntry]:
        """The files of this shard."""
        extra = (self.spans, self.index)
        return [self.kept, self.dropped, *(entry for entry in extra if entry)]


def parquet_bytes(table: pa.Table, row_group: int = ROW_GROUP) -> memoryview:
    """Encode a table as Parquet with settings that are fixed, because they decide the bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group,
        compression="zstd",
        compression_level=3,
        use_dictionary=[
            name for name in ("source", "split", "reason") if name in table.column_names
        ],
        write_statistics=True,
        store_schema=True,
    )
    return sink.getbuffer()


def count_sources(table: pa.Table, kept: npt.NDArray[np.bool_]) -> dict[str, Counts]:
    """Count one shard's documents and text bytes per source, and its drops per reason.

    Where text was cut, `bytes_read` has the bytes before.
    """
    before = "bytes_read" if "bytes_read" in table.column_names else "bytes"
    counts: dict[str, Counts] = {}
    rows = zip(
        table["source"].to_pylist(),
        table[before].fill_null(0).to_pylist(),
        table["bytes"].fill_null(0).to_pylist(),
        table["reason"].to_pylist(),
        kept.tolist(),
        strict=True,
    )
    for source, size, left, reason, is_kept in rows:
        count = counts.setdefault(source, Counts())
        count.read += 1
        count.bytes_read += size
        if is_kept:
            count.kept += 1
            count.bytes_kept += left
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
            write_sidecar(result_path(context, shard), result)
        self._log.add(
            sum(count.bytes_read for count in result.sources.values()),
            sum(count.read for count in result.sources.values()),
        )
        yield shard

    def _write(self, shard: int) -> ShardResult:
        context = self._context
        table, kept = judged_shard(context.scan, context.resolved, shard)
        ledgers, facts = [], {}
        index, scan = None, context.scan
        if scan.recipe.dedup.index:
            orders = [item.order for item in scan.plan.inputs]
            rows = index_table(table, orders, scan.recipe, scan.bands)
            index = self._file("index", shard, rows, index_schema(scan.bands), INDEX_ROW_GROUP)
            banded = len(rows) - rows["bands"].null_count
            facts["index"] = {"readable": len(rows), "banded": banded}
        if context.scan.evaluation:
            ledgers.append(marked_spans(table))
        repeats = context.repeats
        if repeats.steps:
            table, kept, ledger, facts["repeats"] = cut_repeats(table, kept, repeats)
            ledgers.append(ledger)
        counts = count_sources(table, kept)
        stats = {**shard_stats(table, kept), **facts}
        keep = pa.array(kept)
        spans = None
        if ledgers:
            keys = ("doc_id", "start", "end", "reason")
            found = pa.concat_tables(ledgers).sort_by([(key, "ascending") for key in keys])
            spans = self._file("spans", shard, found, spans_schema())
        signals = context.scan.recipe.signals
        kept_columns, dropped_columns = kept_schema(signals), dropped_schema(signals)
        dropped = table.filter(pa.compute.invert(keep)).select(dropped_columns.names)
        if not context.scan.recipe.output.dropped_text:
            place = dropped.schema.get_field_index("text")
            dropped = dropped.set_column(place, "text", pa.nulls(len(dropped), pa.large_string()))
        return ShardResult(
            kept=self._file(
                "kept", shard, table.filter(keep).select(kept_columns.names), kept_columns
            ),
            dropped=self._file("dropped", shard, dropped, dropped_columns),
            sources=counts,
            stats=stats,
            spans=spans,
            index=index,
        )

    def _file(
        self,
        role: str,
        shard: int,
        table: pa.Table,
        schema: pa.Schema,
        row_group: int = ROW_GROUP,
    ) -> ShardEntry:
        data = parquet_bytes(table.cast(schema), row_group)
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


def read_result(context: WriteContext, shard: int, *, verify: bool = True) -> ShardResult | None:
    """Return a finished shard's sidecar, or None where it or a file it describes is not right.

    With `verify` the files are read and hashed; without it, their sizes are looked at.
    """
    result = read_sidecar(result_path(context, shard), ShardResult)
    whole = result is not None and all(
        is_whole(context.out, entry, verify=verify) for entry in result.entries
    )
    return result if whole else None
