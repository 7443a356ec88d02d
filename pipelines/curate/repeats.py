"""Repeats: text that occurs again in the documents that are kept, found in a table of passages.

    tabulate  shard → (bucket, packed rows of the passages of its kept documents)
    merge     bucket → one file: passages that occur twice or more, each with its first place

Substrings take this twice: the first table is of anchors, which say where windows are worth
hashing (see `dedup.substrings`). A document's key is the first 8 bytes of its doc_id, so which
occurrence is the first follows from the documents, not from their order. What each shard sent
and what each bucket got must add up.
"""

from collections.abc import Iterable, Iterator
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
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.errors import CorruptError, ReconcileError
from shards.text import flat

BUCKETS = 64
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

    def path(self, step: Step, name: str) -> str:
        """Return the path of one of a step's files."""
        return files.join(self.resolved, step, name)


class _Done(msgspec.Struct, frozen=True):
    """Written last by a step: the passages in its tables, each as often as it occurs."""

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
    """Shard number → (bucket, packed rows), and a file that says how many passages it sent."""

    def __init__(self, context: RepeatsContext, step: Step) -> None:
        self._context = context
        self._step: Step = step

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        context, config = self._context, self._context.config
        table, kept = judged_shard(context.scan, context.resolved, shard)
        table = table.filter(pa.array(kept))
        data, offsets = flat(table["text"])
        if self._step == "anchors":
            found = find_anchors(data, offsets, config.words)
            zeros = np.zeros(len(found.hash), dtype=np.int64)
            rows = PassageTable(
                found.hash, found.occurrences, zeros.astype(np.uint64), zeros, zeros
            )
        else:
            anchors = load_table(context, "anchors") if config.unit == "substring" else None
            passages = passages_of(data, offsets, config, anchors)
            rows = tabulate(passages, document_keys(table))
        sent = str(int(rows.occurrences.sum())).encode()
        files.write_atomic(context.path(self._step, f"sent-{shard:05d}"), sent)
        self._log.add(0, len(table))
        packed = np.empty(len(rows.hash), dtype=_ROW)
        for name in _FIELDS:
            packed[name] = getattr(rows, name)
        # By the upper bits: the buckets' tables, one after the other, are sorted by hash.
        bounds = np.searchsorted(rows.hash >> np.uint64(58), np.arange(BUCKETS + 1))
        for bucket in range(BUCKETS):
            part = packed[bounds[bucket] : bounds[bucket + 1]]
            if len(part):
                yield bucket, part.tobytes()


class MergeTables(beam.DoFn):
    """(bucket, packed rows) → a file of what occurs at least twice; emits the bucket."""

    def __init__(self, context: RepeatsContext, step: Step) -> None:
        self._context = context
        self._step: Step = step

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        bucket, payloads = element
        rows = np.frombuffer(b"".join(payloads), dtype=_ROW)
        merged = merge_tables(
            [PassageTable(*(np.ascontiguousarray(rows[name]) for name in _FIELDS))]
        )
        left = repeated(merged)
        sink = pa.BufferOutputStream()
        table = pa.table(dict(zip(_FIELDS, left, strict=True)))
        got = str(int(merged.occurrences.sum()))
        table = table.replace_schema_metadata({"passages": got})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        path = self._context.path(self._step, f"table-{bucket:02d}.arrow")
        files.write_hashed(path, memoryview(sink.getvalue()))
        yield bucket


def build_repeats(pipeline: beam.Pipeline, context: RepeatsContext, step: Step) -> None:
    """Add the graph of one table to a pipeline."""
    _ = (
        numbers(pipeline, "shards", context.scan.plan.shards)
        | "tabulate" >> beam.ParDo(TabulateShards(context, step))
        | "buckets" >> beam.GroupByKey()
        | "merge" >> beam.ParDo(MergeTables(context, step))
    )


def finish_step(context: RepeatsContext, step: Step) -> None:
    """Check that the buckets got what the shards sent, and say so in a file.

    Raises:
        ReconcileError: they did not.
    """
    sent = 0
    for shard in range(context.scan.plan.shards):
        path = context.path(step, f"sent-{shard:05d}")
        if not files.exists(path):
            raise ReconcileError(
                f"{step} of shard {shard} are missing: the runner lost an element; run again"
            )
        sent += int(files.read_bytes(path))
    got = _count(context, step)
    if sent != got:
        raise ReconcileError(
            f"{sent} {step} were found but {got} arrived in buckets: the runner lost elements;"
            " run again"
        )
    write_sidecar(context.path(step, "done.json"), _Done(got))


def step_stands(context: RepeatsContext, step: Step) -> bool:
    """Tell whether an earlier run has finished a step, and its tables are as they were written."""
    done = read_sidecar(context.path(step, "done.json"), _Done)
    try:
        return done is not None and done.passages == _count(context, step)
    except CorruptError:
        return False


def _count(context: RepeatsContext, step: Step) -> int:
    tables = _tables(files.join(context.resolved, step))
    return sum(int(table.schema.metadata[b"passages"]) for table in tables)


def _tables(folder: str) -> Iterator[pa.Table]:
    for bucket in range(BUCKETS):
        path = files.join(folder, f"table-{bucket:02d}.arrow")
        if files.exists(path):
            yield pa.ipc.open_file(pa.py_buffer(files.need_hashed(path, folder))).read_all()


def load_table(context: RepeatsContext, step: Step) -> PassageTable:
    """Return the passages of a step that repeat; read once a process."""
    return _load(files.join(context.resolved, step))


@lru_cache(maxsize=2)
def _load(folder: str) -> PassageTable:
    parts = [
        PassageTable(*(table[name].to_numpy() for name in _FIELDS)) for table in _tables(folder)
    ]
    empty = merge_tables([])
    columns = zip(empty, *parts, strict=True)
    return PassageTable(*(np.concatenate(column) for column in columns))
