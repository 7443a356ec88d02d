"""From validation scores to a verdict: paired differences with intervals.

An arm and its control run with the same seeds on the same validation documents. Their difference
in bits per byte is uncertain in two ways: other seeds would have given other weights, and other
documents another score. Each has its interval; the two are independent, so their half-widths
add in squares.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Verdict = Literal["arm better", "arm worse", "no difference seen", "INCONCLUSIVE"]

BOOTSTRAP_SEED = 20_261_124
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """Arm − control in bits per byte, and its intervals: seeds, documents, both."""

    delta: float
    seeds: Interval
    documents: Interval
    both: Interval


def t_interval(differences: Floats, level: float) -> Interval:
    """Return the two-sided t interval (coverage 1 − level) of the mean of `float64[S]`, S ≥ 2."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"a t interval needs at least 2 seeds, got {count}")
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(stats.t.ppf(1 - level / 2, count - 1)) * error
    return Interval(mean - half, mean + half)


def document_interval(
    bits: Floats, sizes: Ints, level: float, samples: int, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Return the percentile bootstrap interval of Σ bits / Σ bytes, resampling documents.

    Args:
        bits: float64[D], the paired difference of each document, averaged over seeds.
        sizes: int64[D], raw bytes of each document.
        level: 1 − coverage.
        samples: number of resamples.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    count = len(bits)
    pairs = np.stack([bits, sizes.astype(np.float64)], axis=1)
    ratios = []
    left = samples
    while left:
        rows = min(left, max(1, _CHUNK // count))
        # How often each document is drawn: the same law as drawing indices, and one product.
        draws = rng.multinomial(count, np.full(count, 1 / count), size=rows)
        totals = draws @ pairs
        ratios.append(totals[:, 0] / totals[:, 1])
        left -= rows
    low, high = np.quantile(np.concatenate(ratios), [level / 2, 1 - level / 2])
    return Interval(float(low), float(high))


def combine(delta: float, first: Interval, second: Interval) -> Interval:
    """Return the interval of a sum of two independent errors around `delta`.

    Half-widths add in squares on either side (MOVER: Zou & Donner 2008, eq. 4). The part of the
    variance that belongs to seeds *and* documents is in both intervals, so that the result errs on
    the wide side, like the pigeonhole bootstrap (Owen 2007).
    """
    low = math.hypot(delta - first.low, delta - second.low)
    high = math.hypot(first.high - delta, second.high - delta)
    return Interval(delta - low, delta + high)


def paired_difference(
    arm: Floats, control: Floats, sizes: Ints, level: float, samples: int
) -> Difference:
    """Compare two arms.

    Args:
        arm, control: float64[S, D], bits of each validation document by seed, seeds paired.
        sizes: int64[D], raw bytes of each document.
        level: 1 − coverage of the intervals.
        samples: bootstrap resamples.
    """
    if arm.shape != control.shape or arm.shape[1:] != sizes.shape:
        raise ValueError(f"shapes differ: {arm.shape}, {control.shape}, {sizes.shape}")
    by_seed = (arm - control).sum(axis=1) / sizes.sum()
    delta = float(by_seed.mean())
    seeds = t_interval(by_seed, level)
    documents = document_interval((arm - control).mean(axis=0), sizes, level, samples)
    return Difference(delta, seeds, documents, combine(delta, seeds, documents))


def verdict_of(interval: Interval, gate_passed: bool) -> Verdict:
    """Say what an interval of arm − control shows; fewer bits are better.

    A study whose gate failed shows nothing: under-trained models prefer repetitive data.
    """
    if not gate_passed:
        return "INCONCLUSIVE"
    if interval.high < 0:
        return "arm better"
    return "arm worse" if interval.low > 0 else "no difference seen"
