"""Near duplicates of a corpus that is in memory: the kernels in the order of the curate job."""

from typing import NamedTuple

import numpy as np

from dedup.bands import band_hashes, banding
from dedup.candidates import candidate_pairs
from dedup.config import NearConfig
from dedup.minhash import signatures
from dedup.shingles import shingle_sets
from dedup.verify import BELOW_ONE, Float32, verify_pairs
from dedup.words import Int64, UInt8, UInt64


def jaccard_of(containment: float, size_ratio: float) -> float:
    """Return the Jaccard similarity of sets of sizes r : 1 whose smaller one is held to a share c.

    c·r / (1 + r − c·r), from |A ∩ B| = c·|A| and |A| = r·|B|.
    """
    shared = containment * size_ratio
    return shared / (1 + size_ratio - shared)


class Edges(NamedTuple):
    """Verified duplicate pairs, sorted by (left, right), left < right."""

    left: Int64
    """int64[p]"""
    right: Int64
    """int64[p]"""
    jaccard: Float32
    """float32[p], each at or above the threshold (or the containment, where that was asked for)"""
    n_candidates: int
    """Pairs that were verified."""


def near_duplicates(
    data: UInt8,
    offsets: Int64,
    config: NearConfig,
    content: UInt64 | None = None,
    rank: Int64 | None = None,
    *,
    containment: bool = False,
) -> Edges:
    """Find the pairs of documents whose Jaccard similarity is at least `config.threshold`.

    Bands follow the Jaccard similarity. With `containment`, set `config.bands` and `rows` to
    `choose_bands(jaccard_of(threshold, size_ratio), num_perm)` for the least size ratio of
    interest; without them, only pairs of about equal size are sure to become candidates.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        config: the `[dedup.near]` table.
        content: uint64[n], 64 bits of each content hash, so that equal texts make a star in place
            of all their pairs (see `dedup.candidates`).
        rank: int64[n], the rank that `keep_greedy` will get: whom large groups are paired with.
        containment: compare the share of the smaller set that the larger one holds with the
            threshold: for copies inside other text. A value of 1 still says equal sets, as
            `keep_greedy` takes it; a smaller set held whole has the next lower number.

    Returns:
        The edges; hand them to `keep_greedy` and `connected_components`. They do not depend on
        the order of the documents but for their numbers.
    """
    bands, rows = banding(config)
    hashes = band_hashes(signatures(data, offsets, config), bands, rows)
    docs = np.repeat(np.arange(offsets.size - 1, dtype=np.int64), bands)
    left, right = candidate_pairs(
        hashes.ravel(),
        docs,
        None if content is None else np.repeat(content, bands),
        None if rank is None else np.repeat(rank, bands),
    )
    wanted, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    sets, bounds = shingle_sets(data, offsets, config.ngram, config.unit, wanted)
    a, b = places[: left.size], places[left.size :]
    jaccard = verify_pairs(sets, bounds, a, b)
    if containment:
        held = verify_pairs(sets, bounds, a, b, containment=True)
        jaccard = np.where(jaccard < 1, np.minimum(held, BELOW_ONE), held)
    real = jaccard >= np.float32(config.threshold)
    return Edges(left[real], right[real], jaccard[real], left.size)
