"""LSH banding: which rows of a signature form a band, and the hash of each band.

Two documents of similarity s share at least one of b bands of r rows with probability
1 − (1 − sʳ)ᵇ (Leskovec et al., *Mining of Massive Datasets*, ch. 3.4). Banding only proposes
candidates: every pair is verified exactly, so a miss costs recall, a false candidate only time.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from dedup.config import TARGET_RECALL, NearConfig
from dedup.minhash import EMPTY
from dedup.words import UInt32, UInt64
from shards.jit import kernel

NO_BAND = 0
"""Band hash of a document without elements; `dedup.candidates` pairs it with nothing."""


@cache
def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return (bands, rows) for a threshold: the most rows that keep `TARGET_RECALL`.

    For a given recall, more rows make a steeper curve and so fewer false candidates. datasketch's
    optimiser weighs the two areas beside the curve instead, which suits an index whose answers
    are final: for 0.8 and 128 it takes (9, 13), and misses 60 % of the pairs at 0.8. With
    verification behind it the choice here is (21, 6): 99.8 % at 0.8, 28 % of pairs at 0.5 verified
    for nothing. Where even one row misses the target, (num_perm, 1), the best there is:
    `NearConfig` refuses to be configured like that.
    """
    for rows in range(num_perm, 1, -1):
        bands = num_perm // rows
        if round(candidate_probability(threshold, bands, rows), 3) >= TARGET_RECALL:
            return bands, rows
    return num_perm, 1


@cache
def area_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return the (bands, rows) that datasketch's `MinHashLSH(threshold, num_perm)` takes.

    The least sum of the two areas between the S-curve and a step at the threshold: false
    candidates on its left, misses on its right. The curve is a polynomial of degree `num_perm`
    at most, so Gauss-Legendre quadrature with half as many nodes has no error but rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(min(num_perm // 2 + 1, 256))
    below, above = (nodes + 1) / 2 * threshold, 1 - (nodes + 1) / 2 * (1 - threshold)
    best, chosen = np.inf, (1, 1)
    for bands in range(1, num_perm + 1):
        for rows in range(1, num_perm // bands + 1):
            false = weights @ (1 - (1 - below**rows) ** bands) * threshold
            missed = weights @ (1 - above**rows) ** bands * (1 - threshold)
            if (error := float(false + missed)) < best:
                best, chosen = error, (bands, rows)
    return chosen


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Return the chance that a pair of this Jaccard similarity shares a band."""
    return 1 - (1 - similarity**rows) ** bands


def banding(config: NearConfig) -> tuple[int, int]:
    """Return the (bands, rows) of a configuration: as given, or chosen for its threshold."""
    if config.bands:
        return config.bands, config.rows
    choose = choose_bands if config.optimise == "recall" else area_bands
    return choose(config.least_jaccard, config.num_perm)


def band_hashes(signatures: npt.NDArray[np.uint32], bands: int, rows: int) -> UInt64:
    """Hash each band of each signature: uint64[n, bands].

    The number of the band goes into the hash, so that rows of different bands can share a
    bucket. A document without elements has `NO_BAND` throughout, and only it.

    Args:
        signatures: uint32[n, K] from `dedup.minhash.signatures`.
        bands, rows: bands × rows ≤ K; later permutations are not used.

    Raises:
        ValueError: bands × rows > K.
    """
    if bands * rows > signatures.shape[1]:
        raise ValueError(
            f"{bands} bands of {rows} rows need {bands * rows} permutations,"
            f" the signatures have {signatures.shape[1]}"
        )
    out = np.empty((signatures.shape[0], bands), dtype=np.uint64)
    _band_hashes(np.ascontiguousarray(signatures), rows, out)
    return out


@kernel("void(Array(uint32, 2, 'C', readonly=True), int64, uint64[:, ::1])")
def _band_hashes(signatures: UInt32, rows: int, out: UInt64) -> None:
    """Fill `out` (uint64[n, bands])."""
    for doc in range(out.shape[0]):
        empty = True
        for k in range(signatures.shape[1]):
            if signatures[doc, k] != EMPTY:
                empty = False
                break
        for band in range(out.shape[1]):
            h = np.uint64(band + 1) * np.uint64(0x9E3779B97F4A7C15)
            for k in range(band * rows, band * rows + rows):
                h = (h ^ np.uint64(signatures[doc, k])) * np.uint64(0x9FB21C651E98DF25)
                h ^= h >> np.uint64(32)
            out[doc, band] = np.uint64(NO_BAND) if empty else max(h, np.uint64(1))
