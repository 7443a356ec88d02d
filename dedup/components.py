"""Connected components of duplicate edges: clusters, named by their smallest member.

`connected_components` is a union-find for edges that fit one worker. `star_components` gives the
same labels by alternating large-star and small-star steps (Kiveris et al. 2014, "Connected
Components in MapReduce and Beyond"), each of which is one group-by-key over edges: the form that
runs distributed when the edges outgrow a worker.
"""

import numpy as np

from dedup.candidates import unique_pairs
from dedup.words import OFFSETS, Int64
from shards.jit import inline, kernel


def connected_components(n: int, left: Int64, right: Int64) -> Int64:
    """Return each node's component, named by its smallest node: int64[n].

    Args:
        n: number of nodes.
        left, right: int64[p], the edges, in any order and direction.
    """
    labels = np.arange(n, dtype=np.int64)
    _union(labels, left, right)
    return labels


@inline
def find(parent: Int64, node: int) -> int:
    """Return the root of `node`, halving the path to it (Tarjan and van Leeuwen 1984)."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel(f"void(int64[::1], {OFFSETS}, {OFFSETS})")
def _union(parent: Int64, left: Int64, right: Int64) -> None:
    """Unite the ends of each edge under the smaller root, then point every node at its root."""
    for edge in range(left.size):
        a, b = find(parent, left[edge]), find(parent, right[edge])
        parent[max(a, b)] = min(a, b)
    for node in range(parent.size):
        parent[node] = parent[parent[node]]  # smaller nodes come first and are roots' children


def star_components(n: int, left: Int64, right: Int64) -> Int64:
    """Return what `connected_components` returns, in O(log² n) rounds of group-by-key steps."""
    left, right = unique_pairs(np.minimum(left, right), np.maximum(left, right))
    while True:
        stars = _small_star(n, *_large_star(n, left, right))
        if np.array_equal(stars[0], left) and np.array_equal(stars[1], right):
            break
        left, right = stars
    labels = np.arange(n, dtype=np.int64)
    labels[right] = left
    return labels


def _large_star(n: int, left: Int64, right: Int64) -> tuple[Int64, Int64]:
    """Join every node's larger neighbours to the smallest node it knows, itself included."""
    smallest = np.arange(n, dtype=np.int64)
    np.minimum.at(smallest, right, left)
    return unique_pairs(*_proper(smallest[left], right))


def _small_star(n: int, left: Int64, right: Int64) -> tuple[Int64, Int64]:
    """Join every node, and its smaller neighbours, to the smallest node it knows."""
    smallest = np.arange(n, dtype=np.int64)
    np.minimum.at(smallest, right, left)
    nodes = np.concatenate([left, right])
    return unique_pairs(*_proper(np.concatenate([smallest[right], smallest[right]]), nodes))


def _proper(left: Int64, right: Int64) -> tuple[Int64, Int64]:
    """Drop self-loops."""
    keep = left != right
    return left[keep], right[keep]
