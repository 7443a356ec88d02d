"""What the steps of the resolve stage share: their context, their files, their buckets.

The verified edges of each partition, and the documents at their ends, are files of packed rows
(`EDGE`, `NODE`), so that what comes after can be chosen by their number. They lie in a folder of
their ranges, since a `place` is a row of a fragment and means nothing to a run with other ranges.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines import files
from pipelines.context import Context
from pipelines.curate.against import EarlierShard
from pipelines.curate.decisions import EDGE, NODE, Cluster, decision_table
from pipelines.curate.scan import ScanContext
from pipelines.sidecars import read_sidecar
from shards.errors import ReconcileError

LEAST_BUCKETS = 64
"""Enough to balance the workers of a small cluster, few enough to pack well."""

BUCKET_ROWS = 8_000_000
"""Rows of 32 bytes that a bucket has at most on average. A worker holds them three times."""

MOST_PARTITIONS = 2048
"""Each verification partition opens every bucket's file, so their product must stay in bounds."""

MOST_EDGES = 5_000_000
"""Edges that one worker decides about; more are contracted and decided bucket by bucket, with the
same outcome. Measured (`benchmarks.dedup_graph`): 340 bytes and 5 µs an edge: 1.7 GB and 25 s."""

NO_SHARD = (1 << 32) - 1
"""The shard of a document of an earlier dataset: nothing is written about it."""

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: Knuth, TAOCP 3, 6.4


class ResolveContext(Context, frozen=True):
    """What a resolve worker needs: the scan's context, where decisions go, and expected rows.

    `most_edges` and `bucket_rows` never change a result, so they are in no recipe and in no key.
    """

    scan: ScanContext
    folder: str
    expected_rows: int
    progress: str
    most_edges: int = msgspec.field(default_factory=lambda: MOST_EDGES)
    bucket_rows: int = msgspec.field(default_factory=lambda: BUCKET_ROWS)

    @property
    def home(self) -> str:
        """The folder of decisions."""
        return self.folder

    @property
    def buckets(self) -> int:
        """How many numbered buckets rows, links and edges are grouped into: a power of two."""
        most = -(-self.expected_rows // self.bucket_rows)
        return max(LEAST_BUCKETS, 1 << (most - 1).bit_length() if most else 1)

    @property
    def places(self) -> int:
        """How many partitions there may be: they go by the fragment of a pair's left end."""
        return min(self.buckets, MOST_PARTITIONS)

    @property
    def partitions(self) -> int:
        """How many partitions have pairs to verify."""
        return min(self.places, len(self.scan.fragments) + len(self.scan.earlier.shards))

    def earlier(self, number: int) -> EarlierShard | None:
        """Return the index shard that has fragment number `number`: they come after the scan's."""
        place = number - len(self.scan.fragments)
        return self.scan.earlier.shards[place] if place >= 0 else None

    def order_of(self, number: int) -> int:
        """Return the place of a fragment's file after those of earlier datasets."""
        owner = self.scan.plan.owner(self.scan.fragments[number].range)
        return len(self.scan.earlier.inputs) + owner.order

    def graph(self, name: str) -> str:
        """Return the path of a file about the edges between these fragments' documents."""
        return files.join(self.graph_folder, name)

    @property
    def graph_folder(self) -> str:
        """The folder of those files."""
        return files.join(self.folder, f"graph-{self.scan.layout}")


class ResolveSummary(msgspec.Struct, frozen=True):
    """Written last by the resolve stage: what was compared and found."""

    rows: int
    verified_pairs: int
    exact_edges: int
    near_edges: int
    nodes: int
    clusters: list[Cluster]


class Graph(msgspec.Struct, frozen=True):
    """Written where there are too many edges for one worker: which files hold how much.

    `nodes` counts rows: a document is in every partition that it has an edge in.
    """

    rows: int
    edges: int
    nodes: int
    partitions: list[int]


def decisions_path(folder: str, shard: int) -> str:
    """Return the path of one shard's decisions."""
    return files.join(folder, f"decisions-{shard:05d}.arrow")


def summary_path(folder: str) -> str:
    """Return the path of the resolve stage's summary."""
    return files.join(folder, "summary.json")


def write_decisions(folder: str, shard: int, rows: npt.NDArray[np.void]) -> None:
    """Write one shard's decisions (`DECISION` rows, sorted by id)."""
    table = decision_table(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    files.write_hashed(decisions_path(folder, shard), memoryview(sink.getvalue()))


def read_decisions(folder: str, shard: int) -> pa.Table:
    """Read one shard's decisions (`DECISION_SCHEMA`).

    Raises:
        CorruptError: they are not as they were written.
    """
    data = files.need_hashed(decisions_path(folder, shard), summary_path(folder))
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def read_summary(context: ResolveContext) -> ResolveSummary | None:
    """Return the summary of a resolve stage whose decisions stand, else None."""
    folder, shards = context.folder, range(context.scan.plan.shards)
    summary = read_sidecar(summary_path(folder), ResolveSummary)
    if summary is None or not all(files.stands(decisions_path(folder, n)) for n in shards):
        return None
    return summary


def edges_path(context: ResolveContext, number: int) -> str:
    """Return the path of a partition's verified edges."""
    return context.graph(f"edges-{number:02d}")


def nodes_path(context: ResolveContext, number: int) -> str:
    """Return the path of the documents at the ends of a partition's edges."""
    return context.graph(f"nodes-{number:02d}")


def write_partition(
    context: ResolveContext,
    number: int,
    edges: npt.NDArray[np.void],
    nodes: npt.NDArray[np.void],
) -> None:
    """Write the verified edges of a partition and the nodes at their ends."""
    files.write_hashed(edges_path(context, number), edges.tobytes())
    files.write_hashed(nodes_path(context, number), nodes.tobytes())


def read_partition(
    context: ResolveContext, number: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Return a partition's (edges, nodes): `EDGE` and `NODE` rows.

    Raises:
        CorruptError: they are not as they were written.
    """
    edges = files.need_hashed(edges_path(context, number), context.graph_folder)
    nodes = files.need_hashed(nodes_path(context, number), context.graph_folder)
    return np.frombuffer(edges, dtype=EDGE), np.frombuffer(nodes, dtype=NODE)


def partition_stands(context: ResolveContext, number: int, *, hashed: bool = False) -> bool:
    """Tell whether a partition's files can be taken up: by `files.stands`, or always by hash."""
    paths = edges_path(context, number), nodes_path(context, number)
    if hashed:
        return all(files.read_hashed(path) is not None for path in paths)
    return all(map(files.stands, paths))


def by_bucket(
    keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.void], buckets: int
) -> Iterator[tuple[int, bytes]]:
    """Split rows by the bucket of their keys (places): (bucket, packed rows).

    `buckets` is a power of two.
    """
    upper_bits = buckets.bit_length() - 1
    bucket = ((keys * _SPREAD) >> np.uint64(64 - upper_bits)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    bounds = np.searchsorted(bucket[order], np.arange(buckets + 1))
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        yield number, rows[order[bounds[number] : bounds[number + 1]]].tobytes()


def check_count(what: str, found: int, expected: int) -> None:
    """Check that all that was sent has arrived.

    Raises:
        ReconcileError: it has not.
    """
    if found != expected:
        raise ReconcileError(
            f"resolve: {found} of {expected} {what} arrived: the runner lost elements; nothing was"
            " committed, run again"
        )
