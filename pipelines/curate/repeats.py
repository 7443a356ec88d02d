"""Repeats: text that occurs again in the documents that are kept, found in a table of passages.

    tabulate  shard  → a file of the passages of its kept documents, a part for each bucket
    merge     bucket → one file: passages that occur twice or more, each with its first place

Passages go from shards to buckets through files: as many rows as a corpus has lines would not fit
into the memory in which a local runner groups. Substrings take this twice: the first table is of
anchors, which say where windows are worth hashing (see `dedup.substrings`). A document's key is
the first 8 bytes of its doc_id, so which occurrence is the first follows from the documents, not
from their order. What each shard sent and what each bucket got must add up.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa

from dedup.config import RepeatsConfig
from dedup.lines import (
    Passages,
    PassageTable,
    find_passages,
    merge_tables,
    repeated,
    tabulate,
)
from dedup.substrings import (
    AnchorTable,
    find_anchors,
    find_windows,
)
from dedup.words import Int64, UInt8, UInt64
from pipelines import files
from pipelines.beam import beam
from pipelines.context import Context
from pipelines.curate.judge import judged_shard
from pipelines.curate.numbers import numbers
from pipelines.curate.scan import ScanContext, id_bytes
from pipelines.parts import parts_stand, read_part, write_parts
from pipelines.progress import ProgressLog
from pipelines.readers import Range
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.errors import CorruptError, ReconcileError
from shards.text import flat

_LEAST_BUCKETS, _BUCKET_BYTES = 64, 512 << 20
"""Lines of 32 bytes give 40 bytes of rows a line, so a bucket's rows are at most some 600 MB; of
prose, which has a line in 150 bytes, 130 MB."""

_PACKED = 4
"""Bytes of text that a byte of a compressed file may have: text in zstd, gzip or Parquet."""

Step = Literal["anchors", "passages"]
_FIELDS = ("hash", "occurrences", "key", "start", "word")
_ROW = np.dtype(list(zip(_FIELDS, ("<u8", "<i8", "<u8", "<i8", "<i8"), strict=True)))


class RepeatsContext(Context, frozen=True):
    """What a worker needs: the scan's context, the decisions, and where tables go."""

    scan: ScanContext
    resolved: str
    progress: str

    @property
    def home(self) -> str:
        """The folder of decisions."""
        return self.resolved

    @property
    def config(self) -> RepeatsConfig:
        """The `[dedup.repeats]` table."""
        return self.scan.recipe.dedup.repeats

    @property
    def steps(self) -> list[Step]:
        """The tables that are made, in order."""
        if self.config.unit == "off":
            return []
        return ["anchors", "passages"] if self.config.unit == "substring" else ["passages"]

    @property
    def buckets(self) -> int:
        """How many buckets there are: a power of two."""
        size = sum(
            span.bytes * (1 if _is_plain(span) else _PACKED) for span in self.scan.plan.ranges
        )
        return max(_LEAST_BUCKETS, 1 << (size // _BUCKET_BYTES).bit_length())

    def path(self, step: Step, name: str) -> str:
        """Return the path of one of a step's files; those for other buckets are elsewhere."""
        return files.join(self.resolved, f"{step}-{self.buckets}", name)


def _is_plain(span: Range) -> bool:
    """Tell whether a range's bytes are about those of its text."""
    return span.compression == "none" and span.format != "parquet"


class _Done(msgspec.Struct, frozen=True):
    """Written last by a shard, and by a step: its passages, each as often as it occurs."""

    passages: int


def document_keys(table: pa.Table) -> UInt64:
    """Return the first 8 bytes of each doc_id, as a number whose hex digits are theirs."""
    return id_bytes(table["doc_id"])[:, :8].copy().view(">u8").ravel().astype(np.uint64)


def passages_of(
    data: UInt8, offsets: Int64, config: RepeatsConfig, anchors: PassageTable | None
) -> Passages:
    """Cut documents into lines or paragraphs, or into the windows that hold a repeated anchor."""
    if config.unit == "substring" and anchors is not None:
        known = AnchorTable(anchors.hash, anchors.occurrences)
        return find_windows(data, offsets, known, config.words)
    unit: Literal["line", "paragraph"] = "line" if config.unit == "line" else "paragraph"
    return find_passages(data, offsets, unit, config.min_bytes)


class TabulateShards(beam.DoFn):
    """Write the passages of each shard number, unless they stand already; emits the number."""

    def __init__(self, context: RepeatsContext, step: Step) -> None:
        self._context = context
        self._step: Step = step

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, shard: int) -> Iterator[int]:
        context, step, buckets = self._context, self._step, self._context.buckets
        folder = context.path(step, "")
        path, done = files.join(folder, _rows(shard)), files.join(folder, _sent(shard))
        if read_sidecar(done, _Done) is None or not parts_stand(path, buckets):
            table, kept = judged_shard(context.scan, context.resolved, shard)
            rows = _tabulate(table.filter(pa.array(kept)), context, step)
            packed = np.empty(len(rows.hash), dtype=_ROW)
            for name in _FIELDS:
                packed[name] = getattr(rows, name)
            # By the upper bits: the buckets' tables, one after the other, are sorted by hash.
            upper = rows.hash >> np.uint64(65 - buckets.bit_length())
            cuts = np.searchsorted(upper, np.arange(1, buckets))
            write_parts(path, [part.tobytes() for part in np.split(packed, cuts)])
            write_sidecar(done, _Done(int(rows.occurrences.sum())))
            self._log.add(0, len(table))
        yield shard


def _tabulate(kept: pa.Table, context: RepeatsContext, step: Step) -> PassageTable:
    """Return a step's rows of the kept documents of a shard."""
    config = context.config
    data, offsets = flat(kept["text"])
    if step == "anchors":
        found = find_anchors(data, offsets, config.words)
        zeros = np.zeros(len(found.hash), dtype=np.int64)
        return PassageTable(found.hash, found.occurrences, zeros.astype(np.uint64), zeros, zeros)
    anchors = load_table(context, "anchors") if config.unit == "substring" else None
    return tabulate(passages_of(data, offsets, config, anchors), document_keys(kept))


class MergeBuckets(beam.DoFn):
    """Write what occurs at least twice in each bucket number; emits the number."""

    def __init__(self, context: RepeatsContext, step: Step) -> None:
        self._context = context
        self._step: Step = step

    def process(self, bucket: int) -> Iterator[int]:
        context, step = self._context, self._step
        made_in = context.path(step, "")
        parts = (
            read_part(files.join(made_in, _rows(shard)), bucket, made_in)
            for shard in range(context.scan.plan.shards)
        )
        rows = np.frombuffer(b"".join(parts), dtype=_ROW)
        merged = merge_tables(
            [PassageTable(*(np.ascontiguousarray(rows[name]) for name in _FIELDS))]
        )
        sink = pa.BufferOutputStream()
        table = pa.table(dict(zip(_FIELDS, repeated(merged), strict=True)))
        got = str(int(merged.occurrences.sum()))
        table = table.replace_schema_metadata({"passages": got})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        files.write_hashed(files.join(made_in, _table(bucket)), memoryview(sink.getvalue()))
        yield bucket


def _rows(shard: int) -> str:
    return f"rows/{shard:05d}"


def _sent(shard: int) -> str:
    return f"rows/{shard:05d}.json"


def _table(bucket: int) -> str:
    return f"table-{bucket:05d}.arrow"


def build_tabulate(pipeline: beam.Pipeline, context: RepeatsContext, step: Step) -> None:
    """Add the graph that writes the rows of a step to a pipeline."""
    shards = numbers(pipeline, "shards", context.scan.plan.shards)
    _ = shards | "tabulate" >> beam.ParDo(TabulateShards(context, step))


def build_merge(pipeline: beam.Pipeline, context: RepeatsContext, step: Step) -> None:
    """Add the graph that merges the rows of a step to a pipeline."""
    buckets = numbers(pipeline, "buckets", context.buckets)
    _ = buckets | "merge" >> beam.ParDo(MergeBuckets(context, step))


def finish_step(context: RepeatsContext, step: Step) -> None:
    """Check that the buckets got what the shards sent, and say so in a file.

    Raises:
        ReconcileError: they did not.
    """
    sent, folder = 0, context.path(step, "")
    for shard in range(context.scan.plan.shards):
        done = read_sidecar(files.join(folder, _sent(shard)), _Done)
        if done is None:
            raise ReconcileError(
                f"{step} of shard {shard} are missing: the runner lost an element; run again"
            )
        sent += done.passages
    got = _count(context, step)
    if sent != got:
        raise ReconcileError(
            f"{sent} {step} were found but {got} arrived in buckets: the runner lost elements;"
            " run again"
        )
    write_sidecar(context.path(step, "done.json"), _Done(got))
    files.delete(context.path(step, "rows"))  # they may be as large as the text


def step_stands(context: RepeatsContext, step: Step) -> bool:
    """Tell whether an earlier run has finished a step, and its tables are as they were written."""
    done = read_sidecar(context.path(step, "done.json"), _Done)
    try:
        return done is not None and done.passages == _count(context, step)
    except CorruptError:
        return False


def _count(context: RepeatsContext, step: Step) -> int:
    tables = _tables(context.path(step, ""), context.buckets)
    return sum(int(table.schema.metadata[b"passages"]) for table in tables)


def _tables(folder: str, buckets: int) -> Iterator[pa.Table]:
    for bucket in range(buckets):
        path = files.join(folder, _table(bucket))
        if files.exists(path):
            yield pa.ipc.open_file(pa.py_buffer(files.need_hashed(path, folder))).read_all()


def load_table(context: RepeatsContext, step: Step) -> PassageTable:
    """Return the passages of a step that repeat; read once a process."""
    return _load(context.path(step, ""), context.buckets)


@lru_cache(maxsize=2)
def _load(folder: str, buckets: int) -> PassageTable:
    parts = [
        PassageTable(*(table[name].to_numpy() for name in _FIELDS))
        for table in _tables(folder, buckets)
    ]
    empty = merge_tables([])
    columns = zip(empty, *parts, strict=True)
    return PassageTable(*(np.concatenate(column) for column in columns))
