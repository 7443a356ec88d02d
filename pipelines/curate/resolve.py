"""Resolve: band hashes → candidate pairs → verified edges → decisions, in numbered buckets.

    emit      fragment → (bucket, packed rows of band hash, content hash, place, rank)
    pair      bucket   → (partition, packed candidate pairs)
    verify    partition → a file of packed verified edges, one of the nodes at their ends
    decide    everything → one decisions file per final shard, and a summary (`decide.py`)

Where there are more edges than one worker decides about, `decide` leaves a summary of the graph
instead, and `resolve_steps` goes on with rounds of star contraction (`contract.py`).

Exact duplicates travel the same way as near ones: their band hash is the content hash and their
bucket number lies above the others. The rows that arrive in `pair` are counted, and the count must
equal what the scan wrote: a runner that loses an element fails the job instead of the dataset.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.candidates import candidate_pairs
from dedup.shingles import shingle_sets
from dedup.verify import Float32, similarities
from dedup.words import Int64, UInt64
from pipelines import files
from pipelines.beam import beam
from pipelines.curate import fragments
from pipelines.curate.against import index_order, read_index, take_index, taken_sets
from pipelines.curate.contract import build_round, forget_links, read_graph, read_round
from pipelines.curate.decide import Decide, Verified, build_decide
from pipelines.curate.decisions import EDGE, NODE
from pipelines.curate.keep import keep_columns, keep_order, pair_rank
from pipelines.curate.resolved import (
    BUCKETS,
    NO_SHARD,
    ResolveContext,
    summary_path,
    write_partition,
)
from pipelines.curate.scan import id_bytes, shard_of
from pipelines.progress import ProgressLog
from shards.text import flat

_ROW = np.dtype([("hash", "<u8"), ("content", "<u8"), ("place", "<u8"), ("rank", "<i8")])
_PAIR = np.dtype([("left", "<u8"), ("right", "<u8"), ("exact", "?")])


class EmitRows(beam.DoFn):
    """Fragment number → (bucket, packed `_ROW`s): one row per band, and one for exact content."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def process(self, index: int) -> Iterator[tuple[int, bytes]]:
        scan = self._context.scan
        earlier = self._context.earlier(index)
        if earlier:
            table = read_index(earlier)
            order = index_order(table, earlier)
            readable = np.ones(len(table), dtype=bool)
        else:
            table = fragments.open_fragment(self._context.path(index)).read_all()
            order = keep_order(table, scan.recipe, self._context.order_of(index))
            readable = np.asarray(table["error"].is_null())
        places = (np.uint64(index) << np.uint64(32)) | np.arange(len(table), dtype=np.uint64)
        rows = np.empty(len(table), dtype=_ROW)
        halves = id_bytes(table["content_hash"]).view("<u8").reshape(-1, 2)
        rows["hash"], rows["content"], rows["place"] = halves[:, 1], halves[:, 0], places
        rows["rank"] = pair_rank(*order, scan.recipe.dedup.near.keep)
        banded = np.asarray(table["bands"].is_valid())
        # Without exact dedup, equal contents are near duplicates like any other: they are still
        # contracted first, so that the outcome does not hang on which pairs a bucket gave.
        exact = readable if scan.recipe.dedup.exact.enabled else banded
        yield from _by_bucket(rows[exact], BUCKETS)
        if banded.any():
            packed = table["bands"].drop_null().combine_chunks()
            width = scan.bands
            raw = np.frombuffer(packed.buffers()[1], dtype="<u8")
            near = np.repeat(rows[banded], width)
            near["hash"] = raw[packed.offset * width : (packed.offset + len(packed)) * width]
            yield from _by_bucket(near, 0)


def _by_bucket(rows: npt.NDArray[np.void], first: int) -> Iterator[tuple[int, bytes]]:
    bucket = (rows["hash"] % np.uint64(BUCKETS)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    bounds = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
    for number in range(BUCKETS):
        chosen = order[bounds[number] : bounds[number + 1]]
        if len(chosen):
            yield first + number, rows[chosen].tobytes()


def bucket_pairs(rows: npt.NDArray[np.void], *, exact: bool) -> npt.NDArray[np.void]:
    """Return the candidate pairs (`_PAIR`, left < right) of one bucket's rows.

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
    pairs = np.empty(len(left), dtype=_PAIR)
    pairs["left"], pairs["right"], pairs["exact"] = left, right, exact
    return pairs


class PairRows(beam.DoFn):
    """(bucket, payloads) → (partition of the left fragment, (packed pairs, rows seen, pairs))."""

    def process(
        self, element: tuple[int, Iterable[bytes]]
    ) -> Iterator[tuple[int, tuple[bytes, int, int]]]:
        bucket, payloads = element
        rows = np.frombuffer(b"".join(payloads), dtype=_ROW)
        pairs = bucket_pairs(rows, exact=bucket >= BUCKETS)
        yield bucket % BUCKETS, (b"", len(rows), len(pairs))
        partition = ((pairs["left"] >> np.uint64(32)) % np.uint64(BUCKETS)).astype(np.int64)
        for number in np.unique(partition):
            yield int(number), (pairs[partition == number].tobytes(), 0, 0)


class VerifyPairs(beam.DoFn):
    """(partition, pairs) → files of edges at or above the threshold and of their nodes."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(
        self, element: tuple[int, Iterable[tuple[bytes, int, int]]]
    ) -> Iterator[tuple[int, Verified]]:
        partition, payloads = element[0], list(element[1])
        arrived = np.frombuffer(b"".join(part[0] for part in payloads), dtype=_PAIR)
        pairs = np.unique(arrived)
        near = pairs[~pairs["exact"]]
        edges = np.empty(len(pairs), dtype=EDGE)
        edges["left"], edges["right"] = pairs["left"], pairs["right"]
        edges["exact"], edges["similarity"], edges["jaccard"] = pairs["exact"], 1.0, 1.0
        edges["band"] = -1
        inexact = np.flatnonzero(~pairs["exact"])
        edges["similarity"][inexact], edges["jaccard"][inexact] = self._similarities(near)
        edges = edges[edges["exact"] | (edges["similarity"] >= self._threshold)]
        inexact = np.flatnonzero(~edges["exact"])
        edges["band"][inexact] = self._first_bands(edges[inexact])
        nodes = self._nodes(np.unique(np.r_[edges["left"], edges["right"]]))
        if len(edges):
            write_partition(self._context, partition, edges, nodes)
        self._log.add(0, len(near))
        rows, sent = sum(part[1] for part in payloads), sum(part[2] for part in payloads)
        yield 0, (partition, len(edges), len(nodes), rows, sent, len(arrived))

    @property
    def _threshold(self) -> np.float32:
        return np.float32(self._context.scan.recipe.dedup.near.threshold)

    def _similarities(self, pairs: npt.NDArray[np.void]) -> tuple[Float32, Float32]:
        """Exact similarity and Jaccard of each pair; shingles are made for candidates only."""
        near = self._context.scan.recipe.dedup.near
        places = np.unique(np.r_[pairs["left"], pairs["right"]])
        if not len(places):
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32)
        texts = [pa.array([], type=pa.large_string())]
        known = []
        for index, rows in _split(places):  # index shards come after all ranges
            if self._context.earlier(index):
                known.append(taken_sets(self._take(index, rows, ["set"])))
            else:
                texts.append(self._take(index, rows, ["text"])["text"].combine_chunks())
        data, offsets = flat(pa.chunked_array(texts))
        sets, bounds = _join_sets([shingle_sets(data, offsets, near.ngram, near.unit), *known])
        left = np.searchsorted(places, pairs["left"])
        right = np.searchsorted(places, pairs["right"])
        return similarities(sets, bounds, left, right, near.measure)

    def _first_bands(self, pairs: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Return the first band that both documents of each pair have, as evidence."""
        if not len(pairs):
            return np.empty(0, dtype=np.int64)
        places = np.unique(np.r_[pairs["left"], pairs["right"]])
        width = self._context.scan.bands
        parts = [np.empty((0, width), dtype="<u8")]
        for index, rows in _split(places):
            packed = self._take(index, rows, ["bands"])["bands"].combine_chunks()
            raw = np.frombuffer(packed.buffers()[1], dtype="<u8").reshape(-1, width)
            parts.append(raw[packed.offset : packed.offset + len(packed)])
        bands = np.concatenate(parts)
        left = bands[np.searchsorted(places, pairs["left"])]
        common = left == bands[np.searchsorted(places, pairs["right"])]
        return np.asarray(np.argmax(common, axis=1))

    def _nodes(self, places: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
        """Read what the decision needs about each document: id, shard, filters' verdict, rank."""
        scan = self._context.scan
        columns = ["doc_id", "content_hash", *keep_columns(scan.recipe)]
        parts = [np.empty(0, dtype=NODE)]
        for index, rows in _split(places):
            earlier = self._context.earlier(index)
            if earlier:
                names = ["doc_id", "order", "position", "eligible"]
                table = self._take(index, rows, names)
                order = index_order(table, earlier)
                shard = np.full(len(rows), NO_SHARD)
            else:
                table = self._take(index, rows, columns)
                order = keep_order(table, scan.recipe, self._context.order_of(index))
                shard = shard_of(id_bytes(table["content_hash"]), scan.plan.shards)
            part = np.empty(len(rows), dtype=NODE)
            part["place"] = (np.uint64(index) << np.uint64(32)) | rows.astype(np.uint64)
            part["id"] = id_bytes(table["doc_id"]).view("S16").ravel()
            part["shard"] = shard
            part["eligible"], part["key"], part["tie"] = order
            parts.append(part)
        return np.concatenate(parts)

    def _take(self, index: int, rows: npt.NDArray[np.int64], columns: list[str]) -> pa.Table:
        earlier = self._context.earlier(index)
        if earlier:
            return take_index(earlier, rows, columns)
        reader = fragments.open_fragment(self._context.path(index))
        return reader.read_all().select(columns).take(pa.array(rows))


def _join_sets(parts: list[tuple[UInt64, Int64]]) -> tuple[UInt64, Int64]:
    """Put shingle sets one after the other: (uint64[m], int64[n + 1])."""
    sets = np.concatenate([values for values, _ in parts])
    sizes = np.concatenate([np.diff(bounds) for _, bounds in parts])
    return sets, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _split(places: npt.NDArray[np.uint64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Split sorted places into (fragment number, rows)."""
    owner = (places >> np.uint64(32)).astype(np.int64)
    rows = (places & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for index in np.unique(owner):
        yield int(index), rows[owner == index]


def build_resolve(pipeline: beam.Pipeline, context: ResolveContext) -> None:
    """Add the resolve graph to a pipeline."""
    count = len(context.scan.plan.ranges) + len(context.scan.earlier.shards)
    verified = (
        pipeline
        | "fragments" >> beam.Create(list(range(count)), reshuffle=True)
        | "emit" >> beam.ParDo(EmitRows(context))
        | "buckets" >> beam.GroupByKey()
        | "pair" >> beam.ParDo(PairRows())
        | "partitions" >> beam.GroupByKey()
        | "verify" >> beam.ParDo(VerifyPairs(context))
    )
    # The empty element makes sure that there is a decision to write where there is no pair at all.
    nothing = pipeline | "nothing" >> beam.Create([(0, (-1, 0, 0, 0, 0, 0))])
    _ = (
        (nothing, verified)
        | "all" >> beam.Flatten()
        | "gather" >> beam.GroupByKey()
        | "decide" >> beam.ParDo(Decide(context))
    )


def resolve_steps(context: ResolveContext) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield (label, build) of each pipeline that is still to run; run one before the next is asked.

    One, unless there are more edges than a worker decides about; what an earlier run has finished
    is left out.
    """
    if files.exists(summary_path(context.folder)):
        return
    if not read_graph(context):
        yield "resolve", partial(build_resolve, context=context)
    if files.exists(summary_path(context.folder)):
        return
    number = 0
    while (done := read_round(context, number)) and done.changes:
        number += 1
        if not read_round(context, number):
            yield f"contract-{number}", partial(build_round, context=context, number=number)
            forget_links(context, number - 1)
    yield "decide", partial(build_decide, context=context, number=number)
