"""Connected components of duplicate edges: clusters, named by their smallest member.

`connected_components` is a union-find for edges that fit one worker. `star_components` gives the
same labels by alternating large-star and small-star steps (Kiveris et al. 2014, "Connected
Components in MapReduce and Beyond"), each of which is one group-by-key over edges: the form that
runs distributed when the edges outgrow a worker (`pipelines/curate/contract.py`).
"""

import numpy as np
import numpy.typing as npt

from dedup.words import OFFSETS, Int64, UInt64
from shards.jit import inline, kernel

Bool = npt.NDArray[np.bool_]


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
    """Return what `connected_components` returns, in rounds of `large_star` and `small_star`.

    Rounds go with the logarithm of the longest path: 17 for one of 10⁶ nodes in random order.
    """
    a, b = left.astype(np.uint64), right.astype(np.uint64)
    changes = 1
    while changes:
        low, high, first = large_star(np.concatenate([a, b]), np.concatenate([b, a]))
        a, b, second = small_star(high, low)
        changes = first + second
    labels = np.arange(n, dtype=np.int64)
    labels[b.astype(np.int64)] = a.astype(np.int64)
    return labels


def large_star(node: UInt64, other: UInt64) -> tuple[UInt64, UInt64, int]:
    """Join every node's larger neighbours to the smallest node it knows, itself included.

    What happens to a node depends on its own rows only, so any partition by node does the same.

    Args:
        node, other: uint64[m], the edges in both directions, in any order, repeats allowed.

    Returns:
        (low uint64[e], high uint64[e], changes): edges low < high, e ≤ m / 2, and how many nodes
        had larger neighbours to hand to a smaller one: 0 where this step changes nothing.
    """
    node, other = _unique(node, other)
    smallest, group = _smallest(node, other)
    larger = other > node
    moved = larger & (smallest[group] < node)
    changes = np.unique(group[moved]).size
    return smallest[group][larger], other[larger], changes


def small_star(node: UInt64, other: UInt64) -> tuple[UInt64, UInt64, int]:
    """Join every node, and its smaller neighbours, to the smallest node it knows.

    Args:
        node, other: uint64[m], each edge once, from its larger end: other < node.

    Returns:
        (low, high, changes) as `large_star` does, e ≤ m; a node with a single smaller neighbour
        changes nothing. Where a round of both steps changes nothing, every component is a star
        around its smallest node: high's component is low.
    """
    node, other = _unique(node, other)
    smallest, group = _smallest(node, other)
    passed = other != smallest[group]
    changes = np.unique(group[passed]).size
    first = _first_of_runs(node)
    low = np.concatenate([smallest, smallest[group][passed]])
    high = np.concatenate([node[first], other[passed]])
    return low, high, changes


def _unique(node: UInt64, other: UInt64) -> tuple[UInt64, UInt64]:
    """Sort rows by (node, other); drop repeats and self-loops."""
    order = np.lexsort((other, node))
    node, other = node[order], other[order]
    fresh = (_first_of_runs(node) | _first_of_runs(other)) & (node != other)
    return node[fresh], other[fresh]


def _smallest(node: UInt64, other: UInt64) -> tuple[UInt64, Int64]:
    """Return of each run of equal nodes the smallest node it knows, and of each row its run."""
    first = _first_of_runs(node)
    group = np.cumsum(first) - 1
    return np.minimum(node[first], other[first]), group  # the rows are sorted


def _first_of_runs(values: UInt64) -> Bool:
    first = np.ones(values.size, dtype=np.bool_)
    first[1:] = values[1:] != values[:-1]
    return first
