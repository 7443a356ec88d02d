"""From verified edges to decisions: pure functions on arrays, no Beam, no files.

Documents are *nodes*. Exact duplicates are contracted first: equal content means equal shingles,
so each group enters near-duplicate resolution as its best eligible member. A node that filters
drop is never a keeper, but it still joins a cluster, so that a split can not put a duplicate of a
validation document into a raw training arm.
"""

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from dedup.components import connected_components
from dedup.keep import keep_greedy

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NODE = np.dtype(
    [
        ("place", "<u8"),
        ("id", "S16"),
        ("shard", "<u4"),
        ("eligible", "?"),
        ("key", "<f8"),
        ("tie", "<i8"),
    ]
)
"""A document that has an edge. `place` is (fragment << 32 | row), used only to join edges with
nodes; (`key`, `tie`, `id`) is what the keep policy sorts by, smaller is better."""

EDGE = np.dtype(
    [
        ("left", "<u8"),
        ("right", "<u8"),
        ("similarity", "<f4"),
        ("jaccard", "<f4"),
        ("band", "<i2"),
        ("exact", "?"),
    ]
)
"""A verified pair: its similarity by the recipe's measure, its Jaccard similarity, and the first
band that both have (-1 for exact duplicates)."""

DECISION = np.dtype(
    [
        ("id", "S16"),
        ("shard", "<u4"),
        ("cluster", "S16"),
        ("size", "<i8"),
        ("dropped", "?"),
        ("matched", "S16"),
        ("similarity", "<f4"),
        ("jaccard", "<f4"),
        ("band", "<i2"),
        ("exact", "?"),
    ]
)
"""What was decided about a document: its cluster and that one's size, and, where it is dropped,
the kept document that it duplicates and how; zeros where it is not."""

DECISION_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("cluster", pa.binary(16), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("matched", pa.binary(16)),
        pa.field("similarity", pa.float32()),
        pa.field("jaccard", pa.float32()),
        pa.field("band", pa.int16()),
        pa.field("exact", pa.bool_(), nullable=False),
    ]
)


def decide(nodes: npt.NDArray[np.void], edges: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Resolve verified edges into one decision per node.

    What is decided about a node depends on its connected component only, so any partition of the
    components gives the same rows.

    Args:
        nodes: `NODE` rows, each place once, in any order.
        edges: `EDGE` rows in any order, repeats allowed; both ends must be nodes.

    Returns:
        `DECISION` rows sorted by id; nothing is dropped that is not eligible. They depend on ids,
        keys and edges alone, not on places or order.
    """
    nodes = np.sort(nodes, order="id")
    by_place = np.argsort(nodes["place"])
    places = nodes["place"][by_place]
    left = by_place[np.searchsorted(places, edges["left"])]
    right = by_place[np.searchsorted(places, edges["right"])]
    count = len(nodes)
    cluster = connected_components(count, left, right)
    rank = np.empty(count, dtype=np.int64)
    rank[np.lexsort((nodes["id"], nodes["tie"], nodes["key"]))] = np.arange(count)
    eligible = np.ascontiguousarray(nodes["eligible"])

    keeper = _exact_keepers(count, left, right, edges["exact"], eligible, rank)
    near = ~edges["exact"]
    matched, similarity = _near_matches(
        keeper, left[near], right[near], edges["similarity"][near], eligible, rank
    )
    # Where a group's best is itself a near duplicate, the others follow it to what is kept.
    follows = eligible & (matched[keeper] >= 0)
    exact = eligible & ~follows & (keeper != np.arange(count))
    final = np.where(follows, matched[keeper], np.where(exact, keeper, -1))
    dropped = final >= 0
    jaccard, band = _evidence(left, right, edges, final)

    rows = np.zeros(count, dtype=DECISION)
    rows["id"], rows["shard"], rows["cluster"] = nodes["id"], nodes["shard"], nodes["id"][cluster]
    rows["size"] = np.bincount(cluster, minlength=count)[cluster]
    rows["dropped"], rows["exact"] = dropped, exact
    rows["matched"][dropped] = nodes["id"][final[dropped]]
    rows["similarity"][dropped] = np.where(exact, 1, similarity[keeper])[dropped]
    rows["jaccard"][dropped] = jaccard[dropped]
    rows["band"][follows] = band[follows]
    return rows


def decision_table(rows: npt.NDArray[np.void]) -> pa.Table:
    """Return `DECISION` rows as a table of `DECISION_SCHEMA`, null where there is nothing."""
    kept = ~rows["dropped"]
    return pa.table(
        [
            _ids(rows["id"]),
            _ids(rows["cluster"]),
            pa.array(rows["size"]),
            _ids(rows["matched"], kept),
            pa.array(rows["similarity"], mask=kept),
            pa.array(rows["jaccard"], mask=kept),
            pa.array(rows["band"], mask=kept | rows["exact"]),
            pa.array(rows["exact"]),
        ],
        schema=DECISION_SCHEMA,
    )


def _evidence(
    left: Ints, right: Ints, edges: npt.NDArray[np.void], matched: Ints
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Return the Jaccard similarity and the first common band of each node and its match.

    The two need not share an edge themselves, but their classes of equal sets do, and what is true
    of one pair of two classes is true of all: equal sets have equal signatures.
    """
    count = len(matched)
    same = edges["exact"] | (edges["similarity"] >= 1)
    label = connected_components(count, left[same], right[same])
    jaccard, band = np.ones(count, dtype=np.float32), np.zeros(count, dtype=np.int16)
    apart = np.flatnonzero((matched >= 0) & (label[matched] != label))
    known = _pair_codes(label[left], label[right], count)
    order = np.argsort(known, kind="stable")
    wanted = _pair_codes(label[apart], label[matched[apart]], count)
    edge = order[np.searchsorted(known[order], wanted)]
    jaccard[apart], band[apart] = edges["jaccard"][edge], edges["band"][edge]
    return jaccard, band


def _pair_codes(left: Ints, right: Ints, count: int) -> Ints:
    """Number unordered pairs of numbers below `count`."""
    return np.asarray(np.minimum(left, right) * count + np.maximum(left, right))


def _exact_keepers(
    count: int, left: Ints, right: Ints, exact: Bools, eligible: Bools, rank: Ints
) -> Ints:
    """Return for each node the best-ranked eligible member of its exact group (or the node)."""
    group = connected_components(count, left[exact], right[exact])
    order = np.lexsort((rank, ~eligible, group))
    first = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if count else order
    best = np.zeros(count, dtype=np.int64)
    best[group[order][first]] = order[first]
    return best[group]


def _near_matches(
    keeper: Ints,
    left: Ints,
    right: Ints,
    jaccard: npt.NDArray[np.float32],
    eligible: Bools,
    rank: Ints,
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Run the greedy keep policy over exact-group keepers."""
    a, b = keeper[left], keeper[right]
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((-jaccard, high, low))
    low, high, jaccard = low[order], high[order], jaccard[order]
    distinct = low != high
    if len(low):
        distinct &= np.r_[True, (np.diff(low) != 0) | (np.diff(high) != 0)]
    return keep_greedy(
        len(keeper), low[distinct], high[distinct], jaccard[distinct], eligible, rank
    )


def _ids(ids: npt.NDArray[np.bytes_], null: Bools | None = None) -> pa.Array:
    """Return 16-byte ids as a fixed_size_binary(16) array, null where `null`."""
    valid = None if null is None else pa.array(~null).buffers()[1]
    data = pa.py_buffer(np.ascontiguousarray(ids))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [valid, data])


TOP_CLUSTERS = 25
MEMBERS_SHOWN = 6


class Cluster(msgspec.Struct, frozen=True):
    """A cluster for reports: id, size, and its first members by doc_id (hex)."""

    cluster: str
    size: int
    members: list[str]


def top_clusters(decisions: npt.NDArray[np.void]) -> list[Cluster]:
    """Return the largest clusters of `DECISION` rows sorted by id."""
    heads = decisions[decisions["id"] == decisions["cluster"]]  # named by its smallest member
    heads = heads[np.argsort(-heads["size"], kind="stable")][:TOP_CLUSTERS]
    found = []
    for head in heads:
        members = np.flatnonzero(decisions["cluster"] == head["cluster"])[:MEMBERS_SHOWN]
        ids = _hex(decisions["id"][members])
        found.append(Cluster(ids[0], int(head["size"]), ids))
    return found


def largest(clusters: list[Cluster]) -> list[Cluster]:
    """Return the largest of the clusters of several parts, by the order of `top_clusters`."""
    return sorted(clusters, key=lambda item: (-item.size, item.cluster))[:TOP_CLUSTERS]


def _hex(ids: npt.NDArray[np.bytes_]) -> list[str]:
    raw = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 16)
    return [row.tobytes().hex() for row in raw]


def is_valid_split(clusters: list[bytes], fraction: float, salt: str) -> Bools:
    """Tell which clusters (16-byte ids) are held out: hash of (salt, id) below `fraction`."""
    limit = int(fraction * 2**64)
    prefix = salt.encode()
    return np.array(
        [xxhash.xxh3_64_intdigest(prefix + cluster) < limit for cluster in clusters], dtype=bool
    )
