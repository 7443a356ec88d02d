"""`keep-v1`: which of the duplicates stay.

Documents come in the order of their rank, and one is dropped only where a document that is
*already kept* is a verified duplicate of it. A chain A ~ B ~ C, where A and C differ, so keeps A
and C; dropping all but one of a connected component would lose C, which resembles nothing kept.
"""

import numpy as np
import numpy.typing as npt

from dedup.components import connected_components
from dedup.verify import Float32
from dedup.words import OFFSETS, Int64
from shards.jit import kernel

Bool = npt.NDArray[np.bool_]


def keep_greedy(
    n: int, left: Int64, right: Int64, jaccard: Float32, eligible: Bool, rank: Int64
) -> tuple[Int64, Float32]:
    """Match each dropped document with the kept one that it duplicates.

    Documents with equal sets (an edge of Jaccard 1) have the same similarities, so they share
    their edges: of such a class only the best-ranked eligible one can stay, and `left`, `right`
    need not join the others to anything but one of their class.

    Args:
        n: number of documents.
        left, right, jaccard: int64[p], int64[p], float32[p], the verified edges (at or above the
            threshold), each pair once.
        eligible: bool[n]; what filters have dropped already keeps nothing else out.
        rank: int64[n], all different, 0 the best. It must follow from the documents (signal,
            then content hash, then id), not from their numbering, for a result that does not
            depend on the input's order.

    Returns:
        (matched int64[n], jaccard float32[n]): the kept duplicate of highest Jaccard, of best
        rank among equals; -1 and 0 for documents that are kept or not eligible.
    """
    matched = np.full(n, -1, dtype=np.int64)
    similarity = np.zeros(n, dtype=np.float32)
    equal = jaccard >= 1
    label = connected_components(n, left[equal], right[equal])
    a, b = label[left[~equal]], label[right[~equal]]
    ends, others = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.argsort(ends, kind="stable")
    starts = np.searchsorted(ends[order], np.arange(n + 1)).astype(np.int64)
    neighbours = np.ascontiguousarray(others[order])
    weights = np.concatenate([jaccard[~equal]] * 2)[order].astype(np.float32)
    _keep(
        np.argsort(rank).astype(np.int64),
        eligible,
        label,
        starts,
        neighbours,
        weights,
        rank,
        matched,
        similarity,
    )
    return matched, similarity


@kernel(
    "void(int64[::1], Array(boolean, 1, 'C', readonly=True), int64[::1], int64[::1], int64[::1],"
    f" float32[::1], {OFFSETS}, int64[::1], float32[::1])"
)
def _keep(
    order: Int64,
    eligible: Bool,
    label: Int64,
    starts: Int64,
    neighbours: Int64,
    weights: Float32,
    rank: Int64,
    matched: Int64,
    similarity: Float32,
) -> None:
    """Go through the documents in rank order; the first of a class decides for the class."""
    n = order.size
    kept = np.full(n, -1, dtype=np.int64)  # of each class: the document that stays
    class_match = np.full(n, -1, dtype=np.int64)  # or the kept one that it duplicates
    class_similarity = np.zeros(n, dtype=np.float32)
    for doc in order:
        if not eligible[doc]:
            continue
        own = label[doc]
        if kept[own] < 0 and class_match[own] < 0:
            best = np.int64(-1)
            weight = np.float32(0)
            for edge in range(starts[own], starts[own + 1]):
                other = kept[neighbours[edge]]
                if other < 0:
                    continue
                closer = weights[edge] > weight
                if closer or (weights[edge] == weight and best >= 0 and rank[other] < rank[best]):
                    best, weight = other, weights[edge]
            if best < 0:
                kept[own] = doc
                continue
            class_match[own], class_similarity[own] = best, weight
        if kept[own] >= 0:
            matched[doc], similarity[doc] = kept[own], np.float32(1)
        else:
            matched[doc], similarity[doc] = class_match[own], class_similarity[own]
