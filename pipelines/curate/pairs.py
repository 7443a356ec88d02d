"""Candidate pairs: band hashes meet in numbered buckets, some buckets a pipeline.

    emit   fragment → (bucket, packed rows of band hash, content hash, place, rank)
    pair   bucket   → a file of candidate pairs, sorted by the partition that will verify them

Exact duplicates travel the same way as near ones: their band hash is the content hash and their
bucket number lies above the others. A local runner holds what it groups in memory, so the buckets
are taken in as many passes as it takes to keep the rows of a pass below `MOST_ROWS`; each pass
reads the band hashes of the fragments again (4 % of the text), and finished buckets
are not made again. A cluster's shuffle has no such limit, and takes all in one pass.
"""

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.candidates import candidate_pairs
from pipelines import files
from pipelines.beam import beam
from pipelines.curate.against import index_order, read_index
from pipelines.curate.keep import keep_columns, keep_order, pair_rank
from pipelines.curate.numbers import numbers
from pipelines.curate.resolved import ResolveContext
from pipelines.curate.scan import id_bytes
from pipelines.parts import parts_stand, read_part, write_parts
from pipelines.progress import ProgressLog
from shards.errors import ReconcileError

MOST_ROWS = 4_000_000
"""Rows of 32 bytes that one pass of a local runner groups. Measured on 11.8 M rows of 2.5 GB of
text: the in-process runner takes 650 MB for them (lists, encoded groups and their copies) and
0.9 s of CPU a million rows, in three passes."""

ROW = np.dtype([("hash", "<u8"), ("content", "<u8"), ("place", "<u8"), ("rank", "<i8")])
PAIR = np.dtype([("left", "<u8"), ("right", "<u8"), ("exact", "?")])
_COUNTS = struct.Struct("<2q")
"""A file of pairs has a part for each partition, which begins with the rows and the pairs of the
whole bucket: a worker that reads its partition only knows them, and checks the sums."""

KeepOrder = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.int64]]

Pass = list[int]
"""Numbers of the buckets that are filled together: near ones, and exact ones from `buckets` on."""


def passes(context: ResolveContext, most_rows: int) -> list[Pass]:
    """Divide the buckets that have no pairs yet into passes of at most `most_rows` rows (0: any).

    A pass has a near and an exact bucket at least, however many rows they have.
    """
    count = -(-context.expected_rows // most_rows) if most_rows else 1
    buckets = context.buckets
    count = min(max(count, 1), buckets)
    parts: list[Pass] = [[] for _ in range(count)]
    for bucket in range(2 * buckets):
        if not pairs_stand(context, bucket):
            parts[bucket % buckets * count // buckets].append(bucket)
    return [part for part in parts if part]


class EmitRows(beam.DoFn):
    """Fragment number → (bucket, packed `ROW`s): one row per band, and one for exact content."""

    def __init__(self, context: ResolveContext, buckets: Pass) -> None:
        self._context = context
        self._buckets = buckets

    def process(self, number: int) -> Iterator[tuple[int, bytes]]:
        scan, buckets = self._context.scan, self._context.buckets
        wanted = np.zeros(2 * buckets, dtype=bool)
        wanted[self._buckets] = True
        table, order, readable = self._read(number)
        places = (np.uint64(number) << np.uint64(32)) | np.arange(len(table), dtype=np.uint64)
        rows = np.empty(len(table), dtype=ROW)
        halves = id_bytes(table["content_hash"]).view("<u8").reshape(-1, 2)
        rows["hash"], rows["content"], rows["place"] = halves[:, 1], halves[:, 0], places
        rows["rank"] = pair_rank(*order, scan.recipe.dedup.near.keep)
        banded = np.asarray(table["bands"].is_valid())
        # Without exact dedup, equal contents are near duplicates like any other: they are still
        # contracted first, so that the outcome does not hang on which pairs a bucket gave.
        exact = np.flatnonzero(readable if scan.recipe.dedup.exact.enabled else banded)
        bucket = (rows["hash"][exact] % np.uint64(buckets)).astype(np.int64) + buckets
        chosen = wanted[bucket]
        yield from _by_bucket(bucket[chosen], rows[exact[chosen]])
        if banded.any():
            packed = table["bands"].drop_null().combine_chunks()
            width = scan.bands
            raw = np.frombuffer(packed.buffers()[1], dtype="<u8")
            raw = raw[packed.offset * width : (packed.offset + len(packed)) * width]
            bucket = (raw % np.uint64(buckets)).astype(np.int64)
            hashes = np.flatnonzero(wanted[bucket])
            near = rows[np.flatnonzero(banded)[hashes // width]]
            near["hash"] = raw[hashes]
            yield from _by_bucket(bucket[hashes], near)

    def _read(self, number: int) -> tuple[pa.Table, KeepOrder, npt.NDArray[np.bool_]]:
        """Return a fragment's rows, their keep order, and which could be read."""
        earlier = self._context.earlier(number)
        if earlier:
            table = read_index(earlier)
            return table, index_order(table, earlier), np.ones(len(table), dtype=bool)
        recipe = self._context.scan.recipe
        columns = list(dict.fromkeys(["content_hash", "bands", "error", *keep_columns(recipe)]))
        table = self._context.scan.open(number, columns).reader.read_all().select(columns)
        order = keep_order(table, recipe, self._context.order_of(number))
        return table, order, np.asarray(table["error"].is_null())


def _by_bucket(
    bucket: npt.NDArray[np.int64], rows: npt.NDArray[np.void]
) -> Iterator[tuple[int, bytes]]:
    order = np.argsort(bucket, kind="stable")
    found, starts = np.unique(bucket[order], return_index=True)
    for number, part in zip(found.tolist(), np.split(order, starts[1:]), strict=False):
        yield number, rows[part].tobytes()


def bucket_pairs(rows: npt.NDArray[np.void], *, exact: bool) -> npt.NDArray[np.void]:
    """Return the candidate pairs (`PAIR`, left < right) of one bucket's rows.

    Exact groups (equal 128-bit content) become stars around their smallest place; near groups go
    through `dedup.candidate_pairs`.
    """
    if exact:
        rows = np.sort(rows, order=["hash", "content", "place"])
        same = (np.diff(rows["hash"]) == 0) & (np.diff(rows["content"]) == 0)
        first = np.r_[True, ~same] if len(rows) else same
        centre = rows["place"][np.flatnonzero(first)][np.cumsum(first) - 1]
        left, right = centre[~first], rows["place"][~first]
    else:
        left, right = candidate_pairs(
            np.ascontiguousarray(rows["hash"]),
            rows["place"].astype(np.int64),
            np.ascontiguousarray(rows["content"]),
            np.ascontiguousarray(rows["rank"]),
        )
    pairs = np.empty(len(left), dtype=PAIR)
    pairs["left"], pairs["right"], pairs["exact"] = left, right, exact
    return pairs


class PairRows(beam.DoFn):
    """(bucket, payloads) → a file of its pairs by partition; emits the bucket."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        bucket, payloads = element
        rows = np.frombuffer(b"".join(payloads), dtype=ROW)
        exact = bucket >= self._context.buckets
        write_pairs(self._context, bucket, len(rows), bucket_pairs(rows, exact=exact))
        self._log.add(0, len(rows))
        yield bucket


def pairs_path(context: ResolveContext, bucket: int) -> str:
    """Return the path of a bucket's pairs."""
    return context.graph(f"pairs-{bucket:03d}")


def partition_of(pairs: npt.NDArray[np.void], places: int) -> npt.NDArray[np.int64]:
    """Return who verifies each pair: by the fragment of its left end, whose texts lie together."""
    return np.asarray((pairs["left"] >> np.uint64(32)) % np.uint64(places), dtype=np.int64)


def write_pairs(
    context: ResolveContext, bucket: int, rows: int, pairs: npt.NDArray[np.void]
) -> None:
    """Write the pairs of a bucket that had `rows` rows, sorted by partition, in one file."""
    partition = partition_of(pairs, context.places)
    order = np.argsort(partition, kind="stable")
    bounds = np.searchsorted(partition[order], np.arange(1, context.places))
    counts = _COUNTS.pack(rows, len(pairs))
    parts = [counts + part.tobytes() for part in np.split(pairs[order], bounds)]
    write_parts(pairs_path(context, bucket), parts)


def read_pairs(
    context: ResolveContext, bucket: int, partition: int
) -> tuple[npt.NDArray[np.void], int, int]:
    """Return a bucket's pairs of one partition, and all of its rows and pairs, for the count.

    Raises:
        CorruptError: they are not as they were written.
    """
    path = pairs_path(context, bucket)
    part = read_part(path, partition, path)
    rows, count = _COUNTS.unpack_from(part)
    return np.frombuffer(part, dtype=PAIR, offset=_COUNTS.size), rows, count


def pairs_stand(context: ResolveContext, bucket: int) -> bool:
    """Tell whether the pairs of a bucket can be taken up, by the rule of `files.stands`."""
    return parts_stand(pairs_path(context, bucket), context.places)


def build_pairs(pipeline: beam.Pipeline, context: ResolveContext, buckets: Pass) -> None:
    """Add the graph of one pass to a pipeline."""
    count = len(context.scan.fragments) + len(context.scan.earlier.shards)
    rows = numbers(pipeline, "fragments", count) | "emit" >> beam.ParDo(EmitRows(context, buckets))
    # An empty payload each, so that a bucket without rows leaves a file too.
    empty = pipeline | "buckets" >> beam.Create([(bucket, b"") for bucket in buckets])
    _ = (
        (empty, rows)
        | "all" >> beam.Flatten()
        | "by-bucket" >> beam.GroupByKey()
        | "pair" >> beam.ParDo(PairRows(context))
    )


def check_pass(context: ResolveContext, buckets: Pass) -> None:
    """Check that each bucket of a pass has left its file.

    Raises:
        ReconcileError: one has not.
    """
    for bucket in buckets:
        if not files.exists(pairs_path(context, bucket)):
            raise ReconcileError(
                f"resolve: bucket {bucket} left no pairs: the runner lost an element; run again and"
                " only the missing ones are made"
            )
