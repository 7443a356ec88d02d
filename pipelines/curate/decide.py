"""Decide: verified edges → one decisions file per final shard, and a summary.

One worker decides where it can hold the edges (`Decide`). Else, once rounds of star contraction
have named each document's component (`contract.py`):

    send     partition → (bucket of the left end, its edges; bucket of a document, it)
    join     bucket    → (bucket of the component, edges and documents)
    decide   bucket    → (shard, decisions): components do not touch, so each bucket is whole
    write    shard     → its file
    finish   the counts of all → the summary

Both ways write the same bytes.
"""

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from pipelines.beam import beam
from pipelines.curate.contract import (
    LINK,
    Round,
    graph_path,
    read_graph,
    read_links,
    read_round,
)
from pipelines.curate.decisions import (
    DECISION,
    EDGE,
    NODE,
    Cluster,
    decide,
    largest,
    top_clusters,
)
from pipelines.curate.resolved import (
    NO_SHARD,
    Graph,
    ResolveContext,
    ResolveSummary,
    by_bucket,
    check_count,
    read_partition,
    summary_path,
    write_decisions,
)
from pipelines.progress import ProgressLog
from pipelines.sidecars import write_sidecar
from shards.errors import ReconcileError

Verified = tuple[int, int, int, int, int, int]
"""Of a partition: its number, edges and nodes; and what the buckets of the same number saw and
sent, hash rows and candidate pairs (to any partition), and the pairs that arrived."""

Payload = tuple[str, bytes]
"""`edges`, `nodes` or `decisions`, packed; or `tally`, a `Tally` as JSON."""


class Decide(beam.DoFn):
    """Everything → decisions of all shards (some empty) and the summary, or the graph's summary."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def process(self, element: tuple[int, Iterable[Verified]]) -> Iterator[int]:
        context = self._context
        parts = sorted(part for part in element[1] if part[0] >= 0)
        rows = sum(part[3] for part in parts)
        if rows != context.expected_rows:
            raise ReconcileError(
                f"resolve compared {rows} hash rows but the scan wrote {context.expected_rows}:"
                " the runner lost elements; nothing was committed"
            )
        check_count("pairs", sum(part[5] for part in parts), sum(part[4] for part in parts))
        used = [part[0] for part in parts if part[1]]
        graph = Graph(rows, sum(part[1] for part in parts), sum(part[2] for part in parts), used)
        if graph.edges > context.most_edges:
            write_sidecar(graph_path(context), graph)
        else:
            _decide_alone(context, graph)
        yield graph.edges


def _decide_alone(context: ResolveContext, graph: Graph) -> None:
    read = [read_partition(context, number) for number in graph.partitions]
    edges = np.concatenate([np.empty(0, dtype=EDGE), *(part[0] for part in read)])
    nodes = np.unique(np.concatenate([np.empty(0, dtype=NODE), *(part[1] for part in read)]))
    check_count("edges", len(edges), graph.edges)
    del read
    decisions = decide(nodes, edges)
    for shard in range(context.scan.plan.shards):
        write_decisions(context.folder, shard, decisions[decisions["shard"] == shard])
    exact = int(edges["exact"].sum())
    _write_summary(context, graph, exact, len(nodes), top_clusters(decisions))


def _write_summary(
    context: ResolveContext, graph: Graph, exact: int, nodes: int, clusters: list[Cluster]
) -> None:
    summary = ResolveSummary(
        rows=graph.rows,
        verified_pairs=graph.edges,
        exact_edges=exact,
        near_edges=graph.edges - exact,
        nodes=nodes,
        clusters=clusters,
    )
    write_sidecar(summary_path(context.folder), summary)


class Tally(msgspec.Struct, frozen=True):
    """What one element of a step got and sent, so that what is lost is noticed."""

    edges_joined: int = 0
    nodes_joined: int = 0
    nodes_sent: int = 0
    edges_decided: int = 0
    nodes_decided: int = 0
    exact: int = 0
    decisions_sent: int = 0
    decisions_written: int = 0
    clusters: list[Cluster] = []


class SendGraph(beam.DoFn):
    """Partition → (bucket, its edges by the left end, its nodes)."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def process(self, partition: int) -> Iterator[tuple[int, Payload]]:
        edges, nodes = read_partition(self._context, partition)
        count = self._context.buckets
        for bucket, packed in by_bucket(edges["left"], edges, count):
            yield bucket, ("edges", packed)
        for bucket, packed in by_bucket(nodes["place"], nodes, count):
            yield bucket, ("nodes", packed)


class JoinComponents(beam.DoFn):
    """(bucket, edges and nodes) → the same under the bucket of their component."""

    def __init__(self, context: ResolveContext, number: int, buckets: list[int]) -> None:
        self._context = context
        self._number = number
        self._buckets = buckets

    def process(self, element: tuple[int, Iterable[Payload]]) -> Iterator[tuple[int, Payload]]:
        bucket, payloads = element[0], list(element[1])
        edges, found = _rows(payloads, "edges", EDGE), _rows(payloads, "nodes", NODE)
        nodes = np.unique(found)
        links = np.empty(0, dtype=LINK)
        if bucket in self._buckets:
            links = np.sort(read_links(self._context, self._number, bucket), order="node")
        count = self._context.buckets
        for number, packed in by_bucket(_component(links, edges["left"]), edges, count):
            yield number, ("edges", packed)
        for number, packed in by_bucket(_component(links, nodes["place"]), nodes, count):
            yield number, ("nodes", packed)
        tally = Tally(edges_joined=len(edges), nodes_joined=len(found), nodes_sent=len(nodes))
        yield bucket, ("tally", msgspec.json.encode(tally))


def _component(
    links: npt.NDArray[np.void], places: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Return each place's component: the centre of its star; a centre has no link of its own."""
    if not len(links):
        return places
    row = np.minimum(np.searchsorted(links["node"], places), len(links) - 1)
    return np.where(links["node"][row] == places, links["other"][row], places)


class DecideBucket(beam.DoFn):
    """(bucket, edges and nodes of whole components) → (shard, decisions)."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)

    def process(self, element: tuple[int, Iterable[Payload]]) -> Iterator[tuple[int, Payload]]:
        payloads = list(element[1])
        edges, nodes = _rows(payloads, "edges", EDGE), _rows(payloads, "nodes", NODE)
        decisions = decide(nodes, edges)
        written = decisions[decisions["shard"] != NO_SHARD]
        for shard in np.unique(written["shard"]):
            yield int(shard), ("decisions", written[written["shard"] == shard].tobytes())
        tally = Tally(
            edges_decided=len(edges),
            nodes_decided=len(nodes),
            exact=int(edges["exact"].sum()),
            decisions_sent=len(written),
            clusters=top_clusters(decisions),
        )
        self._log.add(0, len(edges))
        yield 0, ("tally", msgspec.json.encode(tally))
        yield from ((0, part) for part in payloads if part[0] == "tally")


class WriteDecisions(beam.DoFn):
    """(shard, decisions) → its file; passes the tallies on."""

    def __init__(self, context: ResolveContext) -> None:
        self._context = context

    def process(self, element: tuple[int, Iterable[Payload]]) -> Iterator[tuple[int, bytes]]:
        shard, payloads = element[0], list(element[1])
        rows = np.sort(_rows(payloads, "decisions", DECISION), order="id")
        write_decisions(self._context.folder, shard, rows)
        yield 0, msgspec.json.encode(Tally(decisions_written=len(rows)))
        yield from ((0, data) for kind, data in payloads if kind == "tally")


class FinishDecisions(beam.DoFn):
    """All tallies → the summary."""

    def __init__(self, context: ResolveContext, graph: Graph) -> None:
        self._context = context
        self._graph = graph

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        tallies = [msgspec.json.decode(data, type=Tally) for data in element[1]]
        total = {
            name: sum(getattr(tally, name) for tally in tallies)
            for name in Tally.__struct_fields__
            if name != "clusters"
        }
        check_count("edges", total["edges_joined"], self._graph.edges)
        check_count("nodes", total["nodes_joined"], self._graph.nodes)
        check_count("edges of components", total["edges_decided"], total["edges_joined"])
        check_count("nodes of components", total["nodes_decided"], total["nodes_sent"])
        check_count("decisions", total["decisions_written"], total["decisions_sent"])
        clusters = largest([cluster for tally in tallies for cluster in tally.clusters])
        nodes = total["nodes_decided"]
        _write_summary(self._context, self._graph, total["exact"], nodes, clusters)
        yield nodes


def _rows(payloads: list[Payload], kind: str, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    return np.frombuffer(b"".join(data for own, data in payloads if own == kind), dtype=dtype)


def build_decide(pipeline: beam.Pipeline, context: ResolveContext, number: int) -> None:
    """Add the graph that decides bucket by bucket; round `number` must have changed nothing."""
    graph = read_graph(context) or Graph(0, 0, 0, [])
    last = read_round(context, number) or Round(0, 0, [])
    decided = (
        pipeline
        | "partitions" >> beam.Create(graph.partitions, reshuffle=True)
        | "send" >> beam.ParDo(SendGraph(context))
        | "places" >> beam.GroupByKey()
        | "join" >> beam.ParDo(JoinComponents(context, number, last.buckets))
        | "components" >> beam.GroupByKey()
        | "decide" >> beam.ParDo(DecideBucket(context))
    )
    shards = range(context.scan.plan.shards)
    empty = pipeline | "shards" >> beam.Create([(shard, ("decisions", b"")) for shard in shards])
    _ = (
        (empty, decided)
        | "flatten" >> beam.Flatten()
        | "by-shard" >> beam.GroupByKey()
        | "write" >> beam.ParDo(WriteDecisions(context))
        | "all" >> beam.GroupByKey()
        | "finish" >> beam.ParDo(FinishDecisions(context, graph))
    )
