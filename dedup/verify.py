"""Exact similarity of candidate pairs, from their sorted shingle sets."""

import numpy as np
import numpy.typing as npt

from dedup.config import Measure
from dedup.words import OFFSETS, U64, Int64, UInt64
from shards.jit import inline, kernel

Float32 = npt.NDArray[np.float32]

BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
"""The largest similarity of sets that are not equal."""


def verify_pairs(
    shingle_sets: UInt64,
    offsets: Int64,
    left: Int64,
    right: Int64,
    *,
    containment: bool = False,
) -> Float32:
    """Return the similarity of each pair: float32[p].

    Args:
        shingle_sets, offsets: from `dedup.shingles.shingle_sets` (uint64[m], int64[n + 1]).
        left, right: int64[p], document numbers.
        containment: |A ∩ B| / min(|A|, |B|) in place of the Jaccard similarity
            |A ∩ B| / |A ∪ B|: finds a text inside boilerplate.

    A value is 1 only where the sets are equal (or one holds the other, for containment), and 0
    where either is empty.
    """
    out = np.empty(left.size, dtype=np.float32)
    _verify(shingle_sets, offsets, left, right, containment, out)
    return out


def similarities(
    shingle_sets: UInt64, offsets: Int64, left: Int64, right: Int64, measure: Measure
) -> tuple[Float32, Float32]:
    """Return each pair's similarity by a measure, and its Jaccard similarity: two float32[p].

    Of the similarities, 1 says equal sets as `keep_greedy` takes it, under containment too: there
    a smaller set that is held whole has the next lower number.
    """
    jaccard = verify_pairs(shingle_sets, offsets, left, right)
    if measure == "jaccard":
        return jaccard, jaccard
    held = verify_pairs(shingle_sets, offsets, left, right, containment=True)
    return np.where(jaccard < 1, np.minimum(held, BELOW_ONE), held), jaccard


@inline
def ratio(shared: int | np.int64, whole: int | np.int64) -> np.float32:
    """Return shared / whole as a float32 that is 1 only if they are equal, and 0 for 0 / 0."""
    if shared == whole:
        return np.float32(1 if whole > 0 else 0)
    return min(np.float32(shared / whole), BELOW_ONE)


@kernel(f"void({U64}, {OFFSETS}, {OFFSETS}, {OFFSETS}, boolean, float32[::1])")
def _verify(
    sets: UInt64, offsets: Int64, left: Int64, right: Int64, containment: bool, out: Float32
) -> None:
    """Merge the two sorted sets of each pair, without a branch on their contents."""
    for pair in range(left.size):
        i, end_i = offsets[left[pair]], offsets[left[pair] + 1]
        j, end_j = offsets[right[pair]], offsets[right[pair] + 1]
        size_i, size_j = end_i - i, end_j - j
        shared = np.int64(0)
        while i < end_i and j < end_j:
            a, b = sets[i], sets[j]
            shared += np.int64(a == b)
            i += np.int64(a <= b)
            j += np.int64(b <= a)
        whole = min(size_i, size_j) if containment else size_i + size_j - shared
        out[pair] = ratio(shared, whole)
