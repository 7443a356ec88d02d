"""From verified edges to decisions: pure functions on arrays, no Beam, no files.

Documents are *nodes*. Exact duplicates are contracted first: equal content means equal shingles,
so each group enters near-duplicate resolution as its best eligible member. A node that filters
drop is never a keeper, but it still joins a cluster, so that a split can not put a duplicate of a
validation document into a raw training arm.
"""

from typing import Any

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


def decide(nodes: npt.NDArray[np.void], edges: npt.NDArray[np.void]) -> tuple[pa.Table, Ints]:
    """Resolve verified edges into one decision per node.

    Args:
        nodes: `NODE` rows, each place once, in any order.
        edges: `EDGE` rows in any order, repeats allowed; both ends must be nodes.

    Returns:
        A table with `DECISION_SCHEMA` sorted by doc_id (`size` is the cluster's, matched is null
        where the node is kept or not eligible), and each row's shard. The result depends on ids,
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
    exact = np.zeros(count, dtype=bool)
    final = np.full(count, -1, dtype=np.int64)
    final_similarity = np.full(count, np.nan, dtype=np.float32)
    for node in np.flatnonzero(eligible):
        head = keeper[node]
        if matched[head] >= 0:  # the group's best is itself a near duplicate: follow to the kept
            final[node], final_similarity[node] = matched[head], similarity[head]
        elif head != node:
            final[node], final_similarity[node], exact[node] = head, 1.0, True
    jaccard, band = _evidence(left, right, edges, final)
    ids, dropped = nodes["id"], final >= 0
    table = pa.table(
        [
            _ids(ids, np.arange(count)),
            _ids(ids, cluster),
            pa.array(np.bincount(cluster, minlength=count)[cluster]),
            _ids(ids, final, ~dropped),
            pa.array(final_similarity, mask=~dropped),
            pa.array(jaccard, mask=~dropped),
            pa.array(band, mask=~dropped | exact),
            pa.array(exact),
        ],
        schema=DECISION_SCHEMA,
    )
    return table, nodes["shard"].astype(np.int64)


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


def _ids(ids: npt.NDArray[np.bytes_], index: Ints, null: Bools | None = None) -> pa.Array:
    """Return the 16-byte ids at `index`, null where `null`."""
    raw = np.ascontiguousarray(ids)
    return pa.array([raw[i].ljust(16, b"\0") for i in index], type=pa.binary(16), mask=null)


TOP_CLUSTERS = 25
MEMBERS_SHOWN = 6


def top_clusters(decisions: pa.Table) -> list[dict[str, Any]]:
    """Return the largest clusters for reports: id, size, and its first members by doc_id (hex)."""
    members: dict[bytes, list[bytes]] = {}
    for cluster, doc_id in zip(
        decisions["cluster"].to_pylist(), decisions["doc_id"].to_pylist(), strict=True
    ):
        members.setdefault(cluster, []).append(doc_id)
    largest = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))[:TOP_CLUSTERS]
    return [
        {
            "cluster": cluster.hex(),
            "size": len(ids),
            "members": [doc_id.hex() for doc_id in sorted(ids)[:MEMBERS_SHOWN]],
        }
        for cluster, ids in largest
    ]


def is_valid_split(clusters: list[bytes], fraction: float, salt: str) -> Bools:
    """Tell which clusters (16-byte ids) are held out: hash of (salt, id) below `fraction`."""
    limit = int(fraction * 2**64)
    prefix = salt.encode()
    return np.array(
        [xxhash.xxh3_64_intdigest(prefix + cluster) < limit for cluster in clusters], dtype=bool
    )
