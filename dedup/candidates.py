"""Candidate pairs out of a bucket of band hashes, without quadratic work for huge groups.

A *group* is the documents that share a band hash. Equal contents in it collapse to a star around
their best-ranked document, which alone stands for them in other pairs. In rank order, each of the
first `GROUP_CAP` different contents is paired with all before it, and each later one (boilerplate)
with the `PIVOTS` first and the `NEIGHBOURS` just before it: 12 pairs where all would be n²/2. The
first ones are those that the keep policy will keep, so what it drops has met its keeper; with
pivots of another order, 13 % of 100,000 boilerplate pages stayed.

So a document's pairs depend on nothing that ranks after it, and documents that are added with
later ranks change none of the earlier pairs (`dedup.incremental` builds on that).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.bands import NO_BAND
from dedup.words import OFFSETS, U64, Int64, UInt64
from shards.jit import kernel

GROUP_CAP = 128
NEIGHBOURS = 4
PIVOTS = 8


def candidate_pairs(
    band_hash: UInt64, doc: Int64, content: UInt64 | None = None, rank: Int64 | None = None
) -> tuple[Int64, Int64]:
    """Return the pairs of documents that share a band hash, each once, sorted, left < right.

    Args:
        band_hash: uint64[m], rows of any number of bands; `NO_BAND` rows are ignored.
        doc: int64[m], the document of each row.
        content: uint64[m], 64 bits of each document's content hash; without it no contents
            collapse.
        rank: int64[m], the rank of each document as for `keep_greedy` (lower is better): the
            order of large groups. Without it they follow the content hash, so that the numbers
            given to the documents decide nothing, and the smallest document stands for a content.

    Returns:
        (left int64[p], right int64[p]), whatever the order of the rows.
    """
    rows = _rows_in_groups(band_hash)
    docs, bands = doc[rows], band_hash[rows]
    key = docs.astype(np.uint64) if content is None else content[rows]
    place = docs if rank is None else rank[rows]
    order = np.lexsort((docs, place, key, bands))
    docs, bands, key, place = docs[order], bands[order], key[order], place[order]

    first = _changes(bands) | _changes(key)
    stands_for = docs[np.maximum.accumulate(np.where(first, np.arange(docs.size), 0))]
    copy = stands_for != docs

    docs_f, bands_f = docs[first], bands[first]
    # Equal ranks follow the content hash: the numbers given to the documents decide nothing.
    ranked = (key[first],) if rank is None else (key[first], place[first])
    order = np.lexsort((docs_f, *ranked, bands_f))
    docs_f, bands_f = docs_f[order], bands_f[order]
    nothing = np.empty(0, dtype=np.int64)
    n_pairs = _pairs(bands_f, docs_f, nothing, nothing)
    left, right = np.empty(n_pairs, dtype=np.int64), np.empty(n_pairs, dtype=np.int64)
    _pairs(bands_f, docs_f, left, right)
    left, right = np.append(left, stands_for[copy]), np.append(right, docs[copy])
    return unique_pairs(np.minimum(left, right), np.maximum(left, right))


def unique_pairs(left: Int64, right: Int64) -> tuple[Int64, Int64]:
    """Sort pairs of numbers ≥ 0 and drop repeats."""
    if max(left.max(initial=0), right.max(initial=0)) < 1 << 32:
        # One sort of packed pairs is an order of magnitude faster than a sort by two keys.
        packed = left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)
        packed.sort()
        packed = packed[_changes(packed)]
        low = np.uint64((1 << 32) - 1)
        return (packed >> np.uint64(32)).astype(np.int64), (packed & low).astype(np.int64)
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    fresh = _changes(left) | _changes(right)
    return left[fresh], right[fresh]


def _changes(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where a value differs from the one before it; the first one does."""
    changes = np.ones(values.size, dtype=np.bool_)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _rows_in_groups(band_hash: UInt64) -> Int64:
    """Return the rows whose band hash some other row has too (most have none), and a few more."""
    # Sorting numbers is several times faster than sorting their places: the place replaces the
    # hash's lowest bits. What only falls together by that makes no pairs.
    place_bits = np.uint64(max(band_hash.size - 1, 1).bit_length())
    places = np.arange(band_hash.size, dtype=np.uint64)
    ordered = np.sort((band_hash >> place_bits << place_bits) | places)
    prefix = ordered >> place_bits
    equal = prefix[1:] == prefix[:-1]
    shared = np.zeros(band_hash.size, dtype=np.bool_)
    shared[1:] |= equal
    shared[:-1] |= equal
    rows = (ordered[shared] & ((np.uint64(1) << place_bits) - np.uint64(1))).astype(np.int64)
    return np.asarray(rows[band_hash[rows] != NO_BAND])


@kernel(f"int64({U64}, {OFFSETS}, int64[::1], int64[::1])")
def _pairs(bands: UInt64, docs: Int64, left: Int64, right: Int64) -> int:
    """Write the pairs of rows grouped by band, or only count them if `left` is empty."""
    count = 0
    writes = left.size > 0
    start = 0
    while start < docs.size:
        end = start + 1
        while end < docs.size and bands[end] == bands[start]:
            end += 1
        for i in range(start, end):
            capped = i - start >= GROUP_CAP
            near = i - NEIGHBOURS if capped else start
            for j in range(near, i):
                if writes:
                    left[count], right[count] = docs[j], docs[i]
                count += 1
            for j in range(start, start + PIVOTS if capped else start):
                if writes:
                    left[count], right[count] = docs[j], docs[i]
                count += 1
        start = end
    return count
