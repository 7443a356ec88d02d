"""Contract: connected components of more edges than one worker holds, a round a pipeline.

    send    file of edges → (bucket of each end, packed rows from that end)
    large   bucket        → (bucket of the larger end, packed edges)
    small   bucket        → a file of edges, and what was counted
    finish  everything    → the round's summary, written last

A round is a large-star and a small-star step (Kiveris et al. 2014, "Connected Components in
MapReduce and Beyond"; `dedup.components`); rounds go on until one changes nothing. Then every
component is a star around its smallest place, and the file of bucket b has the component of each
document of bucket b. Rows that were sent and rows that arrived must add up.
"""

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from dedup.components import large_star, small_star
from pipelines import files
from pipelines.beam import beam
from pipelines.curate.resolved import Graph, ResolveContext, by_bucket, check_count, read_partition
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_sidecar, write_sidecar

LINK = np.dtype([("node", "<u8"), ("other", "<u8")])
"""An edge as one of its ends sees it; in files, `other` < `node`."""

Counts = tuple[int, int, int, int]
"""Rows that arrived in `large`, that it sent, that arrived in `small`, and what changed."""


class Round(msgspec.Struct, frozen=True):
    """Written last by a round: its edges, how many nodes changed, and which buckets have a file."""

    edges: int
    changes: int
    buckets: list[int]


def round_path(context: ResolveContext, number: int) -> str:
    """Return the path of a round's summary."""
    return context.graph(f"round-{number:03d}.json")


def read_round(context: ResolveContext, number: int) -> Round | None:
    """Return the summary of a finished round, else None; round 0 is the edges as verified."""
    if number == 0:
        graph = read_graph(context)
        return Round(graph.edges, 1, graph.partitions) if graph else None
    return read_sidecar(round_path(context, number), Round)


def read_graph(context: ResolveContext) -> Graph | None:
    """Return what the verification left for more than one worker, if it did."""
    return read_sidecar(graph_path(context), Graph)


def graph_path(context: ResolveContext) -> str:
    """Return the path of what `read_graph` returns."""
    return context.graph("graph.json")


def links_path(context: ResolveContext, number: int, bucket: int) -> str:
    """Return the path of the edges that a round left in a bucket."""
    return context.graph(f"round-{number:03d}-{bucket:02d}")


def forget_links(context: ResolveContext, number: int) -> None:
    """Delete the edges of a round that a later one has replaced."""
    done = read_round(context, number)
    if number and done:
        for bucket in done.buckets:
            files.delete(links_path(context, number, bucket))


def forget_damaged(context: ResolveContext) -> None:
    """Delete the summaries of all rounds if the last one's edges are not as they were written."""
    number = 0
    while read_round(context, number + 1):
        number += 1
    last = read_round(context, number)
    if number and last:
        paths = [links_path(context, number, bucket) for bucket in last.buckets]
        if not all(map(files.stands, paths)):
            for each in range(1, number + 1):
                files.delete(round_path(context, each))


def read_links(context: ResolveContext, number: int, bucket: int) -> npt.NDArray[np.void]:
    """Return the edges (`LINK`) in a file of a round.

    Raises:
        CorruptError: they are not as they were written.
    """
    if number == 0:
        edges, _ = read_partition(context, bucket)
        return pack(edges["right"], edges["left"])
    packed = files.need_hashed(links_path(context, number, bucket), context.graph_folder)
    return np.frombuffer(packed, dtype=LINK)


def pack(node: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
    """Return `LINK` rows."""
    rows = np.empty(len(node), dtype=LINK)
    rows["node"], rows["other"] = node, other
    return rows


def add_counts(parts: list[Counts]) -> Counts:
    """Add up the counts of several elements."""
    first, second, third, fourth = np.array(parts, dtype=np.int64).reshape(-1, 4).sum(axis=0)
    return int(first), int(second), int(third), int(fourth)


class SendLinks(beam.DoFn):
    """Number of a file of the round before → (bucket, packed `LINK`s), each edge from both ends."""

    def __init__(self, context: ResolveContext, number: int) -> None:
        self._context = context
        self._before = number - 1

    def process(self, bucket: int) -> Iterator[tuple[int, bytes]]:
        links = read_links(self._context, self._before, bucket)
        both = np.concatenate([links, pack(links["other"], links["node"])])
        yield from by_bucket(both["node"], both, self._context.buckets)


class LargeStar(beam.DoFn):
    """(bucket, payloads) → (bucket of the larger end, (packed `LINK`s, counts))."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def process(
        self, element: tuple[int, Iterable[bytes]]
    ) -> Iterator[tuple[int, tuple[bytes, Counts]]]:
        bucket, payloads = element
        rows = np.frombuffer(b"".join(payloads), dtype=LINK)
        low, high, changes = large_star(rows["node"], rows["other"])
        yield bucket, (b"", (len(rows), len(low), 0, changes))
        for number, packed in by_bucket(high, pack(high, low), self._context.buckets):
            yield number, (packed, (0, 0, 0, 0))


class SmallStar(beam.DoFn):
    """(bucket, payloads) → a file of edges; emits (0, (bucket, edges, counts))."""

    def __init__(self, context: ResolveContext, number: int) -> None:
        self._context = context
        self._number = number

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(
        self, element: tuple[int, Iterable[tuple[bytes, Counts]]]
    ) -> Iterator[tuple[int, tuple[int, int, Counts]]]:
        bucket, payloads = element[0], list(element[1])
        rows = np.frombuffer(b"".join(part for part, _ in payloads), dtype=LINK)
        low, high, changes = small_star(rows["node"], rows["other"])
        if len(low):
            path = links_path(self._context, self._number, bucket)
            files.write_hashed(path, pack(high, low).tobytes())
        arrived, sent, _, before = add_counts([counts for _, counts in payloads])
        self._log.add(0, len(rows))
        yield 0, (bucket, len(low), (arrived, sent, len(rows), before + changes))


class FinishRound(beam.DoFn):
    """Everything → the round's summary."""

    def __init__(self, context: ResolveContext, number: int, edges: int) -> None:
        self._context = context
        self._number = number
        self._edges = edges

    def process(self, element: tuple[int, Iterable[tuple[int, int, Counts]]]) -> Iterator[int]:
        parts = sorted(element[1])
        large, sent, small, changes = add_counts([part[2] for part in parts])
        check_count("rows of edges", large, 2 * self._edges)
        check_count("rows of large stars", small, sent)
        edges = sum(part[1] for part in parts)
        done = Round(edges, changes, [part[0] for part in parts if part[1]])
        write_sidecar(round_path(self._context, self._number), done)
        yield edges


def build_round(pipeline: beam.Pipeline, context: ResolveContext, number: int) -> None:
    """Add the graph of round `number` (from 1) to a pipeline; the round before must be done."""
    before = read_round(context, number - 1) or Round(0, 0, [])
    _ = (
        pipeline
        | "files" >> beam.Create(before.buckets, reshuffle=True)
        | "send" >> beam.ParDo(SendLinks(context, number))
        | "ends" >> beam.GroupByKey()
        | "large" >> beam.ParDo(LargeStar(context))
        | "larger-ends" >> beam.GroupByKey()
        | "small" >> beam.ParDo(SmallStar(context, number))
        | "all" >> beam.GroupByKey()
        | "finish" >> beam.ParDo(FinishRound(context, number, before.edges))
    )
