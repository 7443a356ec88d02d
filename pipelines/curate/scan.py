"""Scan: one range of an input file → one fragment, or several parts of a long one.

`scan_range` is the kernel: read records, measure every document, hash its content, compute its
band hashes. `by_shard` sorts rows by (final shard, content hash, doc_id). The DoFn only gives
them files.
"""

import itertools
import struct
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from dedup.bands import NO_BAND, band_hashes
from dedup.exact import content_hashes
from dedup.minhash import signatures
from pipelines import files
from pipelines.beam import beam
from pipelines.context import Context
from pipelines.curate import fragments
from pipelines.curate.against import Earlier
from pipelines.curate.evaluation import EvaluationFile, evaluation_columns
from pipelines.curate.fragments import (
    Fragment,
    FragmentInfo,
    Part,
    fragment_path,
    open_fragment,
)
from pipelines.curate.hash_cache import changed_since
from pipelines.curate.plan import Plan
from pipelines.curate.reference import load_reference
from pipelines.curate.schema import ID, fragment_schema
from pipelines.progress import ProgressLog
from pipelines.quality import compute_signals, pii, url_lists
from pipelines.readers import read_range
from pipelines.recipe import CurateRecipe
from shards.errors import InputError
from shards.hashing import stable_hash
from shards.manifest import Counts
from shards.text import flat

Bytes16 = npt.NDArray[np.uint8]

PART_BYTES = 64 << 20
"""Bytes of measured documents of one fragment (about: a batch of the reader, some 8 MiB, is never
split): above a range of the default size, so only files that can not be split have more."""


class ScanContext(Context, frozen=True):
    """What a worker needs: the plan, the recipe, LSH's (bands, rows), and where to write.

    `stamps` is what the file system said of the inputs before they were hashed, and `list_stamps`
    of the lists and classifiers.
    `fragments` is empty until the scan has ended; `layout` is its hash, the name of what is said
    about their rows. `part_bytes` bounds a worker's memory and never changes a result.
    """

    plan: Plan
    recipe: CurateRecipe
    bands: int
    rows: int
    work: str
    progress: str
    evaluation: list[EvaluationFile] = msgspec.field(default_factory=list)
    earlier: Earlier = Earlier()
    stamps: dict[str, tuple[int, int, int]] = msgspec.field(default_factory=dict)
    list_stamps: dict[str, tuple[int, int, int]] = msgspec.field(default_factory=dict)
    fragments: list[Part] = msgspec.field(default_factory=list)
    layout: str = ""
    part_bytes: int = msgspec.field(default_factory=lambda: PART_BYTES)

    @property
    def home(self) -> str:
        """The work folder."""
        return self.work

    def open(self, number: int, columns: list[str] | None = None) -> Fragment:
        """Open fragment `number`, see `open_fragment`."""
        return open_fragment(fragment_path(self.work, self.plan, self.fragments[number]), columns)


def with_fragments(context: ScanContext, parts: list[Part]) -> ScanContext:
    """Return the context of the stages after the scan, which has left these fragments."""
    spans = [[span.start, span.end] for span in context.plan.ranges]
    layout = stable_hash([context.plan.range_inputs, spans, parts])[:16]
    return msgspec.structs.replace(context, fragments=parts, layout=layout)


def document_ids(input_hash: str, copy: int, position: npt.NDArray[np.int64]) -> Bytes16:
    """Return uint8[n, 16]: xxh3-128 of (input hash, copy number, position) for each record.

    Stable when files are renamed or moved, and known to a range without counting what is before it.
    """
    prefix = bytes.fromhex(input_hash) + struct.pack("<I", copy)
    digests = b"".join(
        xxhash.xxh3_128_digest(prefix + struct.pack("<q", place)) for place in position.tolist()
    )
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def shard_of(content_hash: Bytes16, shards: int) -> npt.NDArray[np.int64]:
    """Return the final shard of each row: the hash's first 8 bytes (little-endian) mod `shards`."""
    head = np.ascontiguousarray(content_hash[:, :8]).view("<u8").ravel()
    return (head % np.uint64(shards)).astype(np.int64)


def ids_array(ids: Bytes16) -> pa.Array:
    """Wrap uint8[n, 16] as a fixed_size_binary(16) array, without a copy."""
    flat_ids = np.ascontiguousarray(ids)
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(flat_ids), [None, pa.py_buffer(flat_ids)])


def text_array(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_]
) -> pa.LargeStringArray:
    """Wrap documents as a large_string array, without a copy; null where not `valid`."""
    validity = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    buffers = (pa.py_buffer(offsets), pa.py_buffer(data), validity)
    return pa.LargeStringArray.from_buffers(len(valid), *buffers, int((~valid).sum()))


def measure(batch: pa.RecordBatch, index: int, context: ScanContext) -> pa.Table:
    """Turn one batch of records into fragment rows (unsorted).

    Unreadable records (text null) keep their row, with null signals and bands, and the hash of
    their own doc_id in place of a content hash, so that they spread over the shards. Personal data
    is masked first, where the recipe asks for it: what comes after knows the masked text only, and
    details quote no more than that.
    """
    owner = context.plan.owner(index)
    readable = np.asarray(batch["text"].is_valid())
    position = batch["position"].to_numpy()
    ids = document_ids(owner.hash, owner.copy, position)
    signals = context.recipe.signals
    text, detail = batch["text"], batch["detail"]
    data, offsets = flat(text.fill_null(""))
    masked: dict[str, npt.NDArray[np.int64]] = {}
    if signals.mask_pii:
        data, offsets, masked = pii.mask_batch(data, offsets)
        text = text_array(data, offsets, readable)
        names = msgspec.structs.astuple(context.recipe.input.fields)
        detail = pa.array(
            [value and pii.mask_detail(value, names) for value in detail.to_pylist()], detail.type
        )
    content = np.where(readable[:, None], content_hashes(data, offsets), ids)
    columns: dict[str, pa.Array] = {
        "doc_id": ids_array(ids),
        "input": pa.array(np.full(len(batch), context.plan.range_inputs[index]), type=pa.uint32()),
        "position": batch["position"],
        "id": batch["id"],
        "url": batch["url"],
        "source": batch["source"].fill_null(context.recipe.input.source),
        "text": text,
        "content_hash": ids_array(content),
        "error": batch["error"],
        "detail": detail,
    }
    measured = compute_signals(data, offsets, signals, load_reference(signals))
    listed = url_lists.compute(signals.url_lists, batch["url"].to_pylist())
    for name, values in {**measured, **masked, **listed}.items():
        columns[name] = pa.array(values, mask=~readable)
    contamination = context.recipe.dedup.contamination
    columns |= evaluation_columns(data, offsets, context.evaluation, contamination)
    columns["bands"] = _bands(data, offsets, readable, context)
    schema = fragment_schema(max(context.bands, 1), signals)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _bands(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    readable: npt.NDArray[np.bool_],
    context: ScanContext,
) -> pa.Array:
    """Return band hashes as fixed_size_binary(8·bands); null where there is nothing to compare."""
    near = context.recipe.dedup.near
    type_ = pa.binary(8 * max(context.bands, 1))
    if not near.enabled:
        return pa.nulls(len(readable), type_)
    hashes = band_hashes(signatures(data, offsets, near), context.bands, context.rows)
    present = readable & (hashes[:, 0] != NO_BAND)
    raw = pa.py_buffer(np.ascontiguousarray(hashes.astype("<u8")))
    validity = pa.py_buffer(np.packbits(present, bitorder="little").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(type_, len(present), [validity, raw])


def scan_range(
    index: int, context: ScanContext, skip: int = 0
) -> Iterator[tuple[pa.Table, int, bool]]:
    """Read and measure range `index`, some `part_bytes` at a time.

    Args:
        index: of the range.
        context: plan, recipe and definitions.
        skip: batches of the reader that are not measured again: an earlier run has their parts.

    Yields:
        A part's rows as they were read, how many batches they are, and whether it is the last.
        The parts of a range follow from its bytes only; one without a record is one empty part.
    """
    held: list[pa.Table] = []
    batches = read_range(
        context.plan.ranges[index],
        files.open_file,
        context.recipe.input.fields,
        max_record_bytes=context.recipe.input.max_record_bytes,
    )
    for batch in itertools.islice(batches, skip, None):
        if sum(table.nbytes for table in held) >= context.part_bytes:
            yield pa.concat_tables(held), len(held), False
            held = []
        held.append(measure(batch, index, context))
    schema = fragment_schema(max(context.bands, 1), context.recipe.signals)
    yield pa.concat_tables(held) if held else schema.empty_table(), len(held), True


def by_shard(table: pa.Table, shards: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Sort rows by (final shard, content hash, doc_id); return them and their shards."""
    content = id_bytes(table["content_hash"])
    shard = shard_of(content, shards)
    order = np.lexsort((sort_key(id_bytes(table["doc_id"])), sort_key(content), shard))
    return table.take(pa.array(order)), shard[order]


def id_bytes(column: pa.ChunkedArray) -> Bytes16:
    """Return a fixed_size_binary(16) column without nulls as uint8[n, 16]."""
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.uint8).reshape(-1, 16)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 16), dtype=np.uint8)


def sort_key(ids: Bytes16) -> npt.NDArray[np.bytes_]:
    """View uint8[n, 16] as n byte strings that numpy sorts in byte order."""
    return np.ascontiguousarray(ids).view("S16").ravel()


def count_sources(table: pa.Table) -> dict[str, Counts]:
    """Count what was read, per source: documents (bad records too) and bytes of readable text."""
    sizes = table["bytes"].fill_null(0)
    grouped = pa.table({"source": table["source"], "bytes": sizes}).group_by("source")
    totals = grouped.aggregate([("bytes", "count"), ("bytes", "sum")])
    return {
        row["source"]: Counts(read=row["bytes_count"], bytes_read=row["bytes_sum"])
        for row in totals.to_pylist()
    }


class ScanRanges(beam.DoFn):
    """Write the fragments of each range number, unless they stand already; emits the number."""

    def __init__(self, context: ScanContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, index: int) -> Iterator[int]:
        context = self._context
        infos, whole = fragments.read_parts(context.work, context.plan, index)
        if not whole:
            done = sum(info.batches for info in infos)
            for table, batches, last in scan_range(index, context, done):
                infos.append(self._write(Part(index, len(infos)), table, batches, last=last))
        self._log.add(context.plan.ranges[index].bytes, sum(info.rows for info in infos))
        yield index

    def _write(self, at: Part, table: pa.Table, batches: int, *, last: bool) -> FragmentInfo:
        context = self._context
        path = context.plan.ranges[at.range].path
        own = {path: context.stamps[path]} if path in context.stamps else {}
        if changed := changed_since(own | context.list_stamps):
            raise InputError(changed)  # its name would say that it is of what was hashed
        data = fragments.fragment_bytes(*by_shard(table, context.plan.shards), context.plan.shards)
        info = FragmentInfo(
            hash=xxhash.xxh3_128_hexdigest(data),
            bytes=len(data),
            rows=len(table),
            readable=table["error"].null_count,
            banded=len(table) - table["bands"].null_count,
            sources=count_sources(table),
            batches=batches,
            last=last,
        )
        fragments.write_fragment(fragment_path(context.work, context.plan, at), data, info)
        return info
