"""Resolve: band hashes → candidate pairs → verified edges → decisions, in numbered buckets.

    pair      fragments → files of candidate pairs, in passes of some buckets (`pairs.py`)
    verify    partition → a file of packed verified edges, one of the nodes at their ends
    decide    everything → one decisions file per final shard, and a summary (`decide.py`)

Where there are more edges than one worker decides about, `decide` leaves a summary of the graph
instead, and `resolve_steps` goes on with rounds of star contraction (`contract.py`).

The rows that arrive in `pair` are counted, and the count must equal what the scan wrote, as must
the pairs in `verify`: a runner that loses an element fails the job instead of the dataset.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.shingles import shingle_sets
from dedup.verify import Float32, similarities
from dedup.words import Int64, UInt64
from pipelines.beam import beam
from pipelines.curate.against import index_order, take_index, taken_sets
from pipelines.curate.contract import (
    build_round,
    forget_damaged,
    forget_links,
    read_graph,
    read_round,
)
from pipelines.curate.decide import Decide, Verified, build_decide
from pipelines.curate.decisions import EDGE, NODE
from pipelines.curate.keep import keep_columns, keep_order
from pipelines.curate.numbers import numbers
from pipelines.curate.pairs import MOST_ROWS, build_pairs, check_pass, passes, read_pairs
from pipelines.curate.resolved import (
    NO_SHARD,
    ResolveContext,
    partition_stands,
    read_summary,
    write_partition,
)
from pipelines.curate.scan import id_bytes, shard_of
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.text import flat

CHUNK_BYTES = 64 << 20
"""Bytes of text that one comparison takes (shingle sets are about as large): more pairs than that
are verified one chunk after the other."""


class _Partition(msgspec.Struct, frozen=True):
    """Written last by the verification of a partition."""

    counts: Verified


class VerifyPairs(beam.DoFn):
    """Partition → files of edges at or above the threshold and of their nodes, and counts."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, partition: int) -> Iterator[tuple[int, Verified]]:
        done = self._context.graph(f"verified-{partition:02d}.json")
        if (known := read_sidecar(done, _Partition)) and self._stands(known.counts):
            yield 0, known.counts
            return
        buckets = range(2 * self._context.buckets)
        read = [read_pairs(self._context, bucket, partition) for bucket in buckets]
        arrived = np.concatenate([part[0] for part in read])
        pairs = np.unique(arrived)
        edges = np.empty(len(pairs), dtype=EDGE)
        edges["left"], edges["right"] = pairs["left"], pairs["right"]
        edges["exact"], edges["similarity"], edges["jaccard"] = pairs["exact"], 1.0, 1.0
        edges["band"] = -1
        inexact = np.flatnonzero(~pairs["exact"])
        for chunk in self._chunks(pairs[inexact]):
            rows = inexact[chunk]
            edges["similarity"][rows], edges["jaccard"][rows] = self._similarities(pairs[rows])
        edges = edges[edges["exact"] | (edges["similarity"] >= self._threshold)]
        inexact = np.flatnonzero(~edges["exact"])
        edges["band"][inexact] = self._first_bands(edges[inexact])
        nodes = self._nodes(np.unique(np.r_[edges["left"], edges["right"]]))
        if len(edges):
            write_partition(self._context, partition, edges, nodes)
        self._log.add(0, int((~pairs["exact"]).sum()))
        own = read[partition :: self._context.partitions]  # each bucket is counted by one
        counts = (sum(part[1] for part in own), sum(part[2] for part in own), len(arrived))
        result = (partition, len(edges), len(nodes), *counts)
        write_sidecar(done, _Partition(result))
        yield 0, result

    def _stands(self, known: Verified) -> bool:
        """Tell whether the files that a partition has left are as they were written."""
        partition, edges, *_ = known
        return not edges or partition_stands(self._context, partition, hashed=True)

    def _chunks(self, pairs: npt.NDArray[np.void]) -> Iterator[slice]:
        """Cut sorted pairs into runs whose texts are about `CHUNK_BYTES`."""
        if not len(pairs):
            return
        places, ends = np.unique(np.r_[pairs["left"], pairs["right"]], return_inverse=True)
        sizes = [
            # An earlier dataset's document has its shingles there, 8 bytes each: about its text.
            np.full(len(rows), 1 << 13)
            if self._context.earlier(number)
            else self._take(number, rows, ["bytes"])["bytes"].to_numpy()
            for number, rows in _split(places)
        ]
        size = np.concatenate(sizes).astype(np.int64)
        left, right = ends[: len(pairs)], ends[len(pairs) :]
        # Sorted by the left end: its text counts once for a run of pairs, the right ones each time.
        cost = size[right] + np.where(np.r_[True, np.diff(left) != 0], size[left], 0)
        chunk = np.cumsum(cost) // CHUNK_BYTES
        starts = np.flatnonzero(np.r_[True, np.diff(chunk) != 0])
        for start, end in pairwise([*starts.tolist(), len(pairs)]):
            yield slice(start, end)

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
        return self._context.scan.open(index, columns).take(rows, columns)


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


def build_verify(pipeline: beam.Pipeline, context: ResolveContext) -> None:
    """Add the graph that verifies the pairs of all buckets, and decides, to a pipeline."""
    verified = numbers(pipeline, "partitions", context.partitions) | "verify" >> beam.ParDo(
        VerifyPairs(context)
    )
    _ = verified | "gather" >> beam.GroupByKey() | "decide" >> beam.ParDo(Decide(context))


def resolve_steps(
    context: ResolveContext, most_rows: int | None = None
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield (label, build) of each pipeline that is still to run; run one before the next is asked.

    What an earlier run has finished is left out.

    Args:
        context: of the stage.
        most_rows: rows that are grouped at a time, `MOST_ROWS` by default, 0 for all; it changes no
            result.

    Raises:
        ReconcileError: a bucket left no file.
    """
    if read_summary(context):
        return
    graph = read_graph(context)
    if not graph or not all(partition_stands(context, number) for number in graph.partitions):
        todo = passes(context, MOST_ROWS if most_rows is None else most_rows)
        for number, buckets in enumerate(todo, start=1):
            label = "pair" if len(todo) == 1 else f"pair-{number}"
            yield label, partial(build_pairs, context=context, buckets=buckets)
            check_pass(context, buckets)
        yield "verify", partial(build_verify, context=context)
    if read_summary(context):
        return
    forget_damaged(context)
    number = 0
    while (done := read_round(context, number)) and done.changes:
        number += 1
        if not read_round(context, number):
            yield f"contract-{number}", partial(build_round, context=context, number=number)
            forget_links(context, number - 1)
    yield "decide", partial(build_decide, context=context, number=number)
