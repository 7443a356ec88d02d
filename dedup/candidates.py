"""Candidate pairs out of a bucket of band hashes, without quadratic work for huge groups.

A *group* is the documents that share a band hash. Equal contents in it collapse to a star around
their smallest document, which alone stands for them in other pairs. A group of up to `GROUP_CAP`
different contents gives all its pairs. A larger one (boilerplate) gives each document its
`NEIGHBOURS` next ones and the `PIVOTS` first ones, in the order of their content hashes: n·24
pairs that hold the group together, where all pairs would be n²/2. What this misses, another band
may find; a document that is only similar to others of its group still meets its pivots.
"""

import numpy as np

from dedup.bands import NO_BAND
from dedup.words import OFFSETS, U64, Int64, UInt64
from shards.jit import inline, kernel

GROUP_CAP = 128
NEIGHBOURS = 8
PIVOTS = 16


def candidate_pairs(
    band_hash: UInt64, doc: Int64, content: UInt64 | None = None
) -> tuple[Int64, Int64]:
    """Return the pairs of documents that share a band hash, each once, sorted, left < right.

    Args:
        band_hash: uint64[m], rows of any number of bands; `NO_BAND` rows are ignored.
        doc: int64[m], the document of each row.
        content: uint64[m], 64 bits of each document's content hash; without it no contents
            collapse. Pairs of large groups follow its order, so with it the numbers given to
            the documents do not decide who meets whom.

    Returns:
        (left int64[p], right int64[p]), whatever the order of the rows.
    """
    rows = _rows_in_groups(band_hash)
    key = np.ascontiguousarray(doc[rows]).view(np.uint64) if content is None else content[rows]
    order = np.lexsort((doc[rows], key, band_hash[rows]))
    rows, key = rows[order], np.ascontiguousarray(key[order])
    bands, docs = np.ascontiguousarray(band_hash[rows]), np.ascontiguousarray(doc[rows])
    nothing = np.empty(0, dtype=np.int64)
    n_pairs = _pairs(bands, key, docs, nothing, nothing)
    left, right = np.empty(n_pairs, dtype=np.int64), np.empty(n_pairs, dtype=np.int64)
    _pairs(bands, key, docs, left, right)
    return unique_pairs(left, right)


def unique_pairs(left: Int64, right: Int64) -> tuple[Int64, Int64]:
    """Sort pairs and drop repeats."""
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    fresh = np.ones(left.size, dtype=np.bool_)
    fresh[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return left[fresh], right[fresh]


def _rows_in_groups(band_hash: UInt64) -> Int64:
    """Return the rows whose band hash some other row has too (most have none)."""
    order = np.argsort(band_hash)
    ordered = band_hash[order]
    equal = ordered[1:] == ordered[:-1]
    shared = np.zeros(band_hash.size, dtype=np.bool_)
    shared[1:] |= equal
    shared[:-1] |= equal
    shared &= ordered != NO_BAND
    rows: Int64 = order[shared]
    return rows


@inline
def _emit(a: int, b: int, left: Int64, right: Int64, count: int) -> int:
    """Write the pair (a, b) if there is room for pairs at all; return the new count."""
    if a == b:
        return count
    if left.size > 0:
        left[count] = min(a, b)
        right[count] = max(a, b)
    return count + 1


@kernel(f"int64({U64}, {U64}, {OFFSETS}, int64[::1], int64[::1])")
def _pairs(bands: UInt64, content: UInt64, docs: Int64, left: Int64, right: Int64) -> int:
    """Write all pairs of rows sorted by (band, content, doc), or count them if `left` is empty."""
    count = 0
    firsts = np.empty(docs.size, dtype=np.int64)  # smallest document of each content in the group
    start = 0
    while start < docs.size:
        n_contents = 0
        end = start
        while end < docs.size and bands[end] == bands[start]:
            if end == start or content[end] != content[end - 1]:
                firsts[n_contents] = docs[end]
                n_contents += 1
            elif docs[end] != docs[end - 1]:
                count = _emit(firsts[n_contents - 1], docs[end], left, right, count)
            end += 1
        everything = n_contents <= GROUP_CAP
        for i in range(n_contents):
            reach = n_contents if everything else min(i + 1 + NEIGHBOURS, n_contents)
            for j in range(i + 1, reach):
                count = _emit(firsts[i], firsts[j], left, right, count)
            if not everything:
                for j in range(min(PIVOTS, i)):
                    count = _emit(firsts[i], firsts[j], left, right, count)
        start = end
    return count
