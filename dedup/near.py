"""Near duplicates of a corpus that is in memory: the kernels in the order of the curate job."""

from typing import NamedTuple

import numpy as np

from dedup.bands import band_hashes, banding
from dedup.candidates import candidate_pairs
from dedup.config import NearConfig
from dedup.minhash import signatures
from dedup.shingles import shingle_sets
from dedup.verify import Float32, similarities
from dedup.words import Int64, UInt8, UInt64


class Edges(NamedTuple):
    """Verified duplicate pairs, sorted by (left, right), left < right."""

    left: Int64
    """int64[p]"""
    right: Int64
    """int64[p]"""
    similarity: Float32
    """float32[p], by `config.measure`, each at or above the threshold; 1 only for equal sets"""
    n_candidates: int
    """Pairs that were verified."""


def near_duplicates(
    data: UInt8,
    offsets: Int64,
    config: NearConfig,
    content: UInt64 | None = None,
    rank: Int64 | None = None,
) -> Edges:
    """Find the pairs of documents whose similarity is at least `config.threshold`.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        config: the `[dedup.near]` table.
        content: uint64[n], 64 bits of each content hash, so that equal texts make a star in place
            of all their pairs (see `dedup.candidates`).
        rank: int64[n], the rank that `keep_greedy` will get: whom large groups are paired with.

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
    similarity, _ = similarities(sets, bounds, a, b, config.measure)
    real = similarity >= np.float32(config.threshold)
    return Edges(left[real], right[real], similarity[real], left.size)
