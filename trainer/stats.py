"""From validation scores to verdicts: paired differences with intervals, corrected for many arms.

An arm and its control run with the same seeds on the same validation documents. Their difference
in bits per byte is uncertain in two ways: other seeds would have given other weights, and other
documents another score. Each has its interval; the two are independent, so their half-widths
add in squares. The p-value is the level at which that interval touches zero, so that interval and
verdict cannot contradict each other, and Holm's procedure says at which level each arm is tested.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Verdict = Literal["arm better", "arm worse", "no difference seen", "INCONCLUSIVE"]

BOOTSTRAP_SEED = 20_261_124
FEWEST_BEYOND = 5
"""Resamples that must lie beyond a percentile for it to be known (a relative error of 1/√5)."""

_CHUNK = 4_000_000


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """Arm − control in bits per byte, and its intervals: seeds, documents, both.

    `level` is 1 − coverage of the three, the level at which Holm's procedure tests this arm;
    `p_value` is corrected for the number of arms.
    """

    delta: float
    level: float
    p_value: float
    seeds: Interval
    documents: Interval
    both: Interval


@dataclass(frozen=True)
class Errors:
    """A difference and what is known of its two errors.

    delta: arm − control, bits per byte.
    by_seed: float64[S], the difference of each seed.
    resampled: float64[B], ascending: the difference under resampled documents.
    effective: documents that the validation is worth, see `effective_documents`.
    """

    delta: float
    by_seed: Floats
    resampled: Floats
    effective: float

    @cached_property
    def _seed_error(self) -> float:
        return float(self.by_seed.std(ddof=1)) / math.sqrt(len(self.by_seed))

    @cached_property
    def _document_error(self) -> float:
        return float(self.resampled.std())

    def seeds(self, level: float) -> Interval:
        """Return the interval with respect to seeds alone (see `t_interval`)."""
        half = _t_quantile(len(self.by_seed), level) * self._seed_error
        return Interval(self.delta - half, self.delta + half)

    def documents(self, level: float) -> Interval:
        """Return the interval with respect to documents alone.

        Expanded percentiles (Hesterberg 2015, §4.1): of n documents the plain ones are as narrow as
        if the variance were known; the level is moved to what a t interval of n documents has.
        Where fewer than `FEWEST_BEYOND` resamples are as far out as that asks, not narrower than
        that t interval itself: two documents have three resampled means, and no tail. The standard
        deviation of resamples with HC3's residuals is √(n / (n − 1)) standard errors.
        """
        expansion = math.sqrt(self.effective / max(1.0, self.effective - 1))
        quantile = _t_quantile(self.effective, level)
        tail = float(special.ndtr(-expansion * quantile))
        low, high = _percentile(self.resampled, tail), _percentile(self.resampled, 1 - tail)
        if tail * len(self.resampled) < FEWEST_BEYOND:
            half = quantile * self._document_error / expansion
            low, high = min(low, self.delta - half), max(high, self.delta + half)
        return Interval(low, high)

    def both(self, level: float) -> Interval:
        """Return the interval with respect to seeds and documents."""
        return combine(self.delta, self.seeds(level), self.documents(level))

    def p_value(self) -> float:
        """Return the smallest level at which the interval of both leaves out zero.

        Never below 1 / (B + 1): B resamples know nothing of rarer things (Phipson & Smyth 2010).
        """
        low, high = 1 / (len(self.resampled) + 1), 1.0
        if _leaves_out_zero(self.both(low)):
            return low
        for _ in range(30):
            middle = (low + high) / 2
            if _leaves_out_zero(self.both(middle)):
                high = middle
            else:
                low = middle
        return high


def _t_quantile(count: float, level: float) -> float:
    """Return the upper level / 2 quantile of Student's t with count − 1 degrees of freedom."""
    return float(special.stdtrit(count - 1, 1 - level / 2))


def _percentile(ordered: Floats, share: float) -> float:
    """Return the value at `share` of ascending values, linear between them (as np.quantile)."""
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    low, high = float(ordered[below]), float(ordered[below + 1])
    return low + (place - below) * (high - low)


def _leaves_out_zero(interval: Interval) -> bool:
    return not interval.low <= 0 <= interval.high


def t_interval(differences: Floats, level: float) -> Interval:
    """Return the two-sided t interval (coverage 1 − level) of the mean of `float64[S]`, S ≥ 2."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"a t interval needs at least 2 seeds, got {count}")
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = _t_quantile(count, level) * error
    return Interval(mean - half, mean + half)


def effective_documents(sizes: Ints) -> float:
    """Return how many documents of equal size tell as much: (Σ b)² / Σ b² (Kish 1965, §8.2); ≥ 2.

    A few long documents decide a ratio of sums; the t quantile must know it.
    """
    weights = sizes / sizes.sum()
    return max(2.0, float(1 / np.square(weights).sum()))


def resample_documents(
    bits: Floats, sizes: Ints, samples: int, seed: int = BOOTSTRAP_SEED
) -> Floats:
    """Return differences Σ bits / Σ bytes under resampled documents, `float64[samples, A]`, sorted.

    A document of weight w pulls the ratio towards itself, so its residual is too small by 1 − w;
    dividing by that (HC3: MacKinnon & White 1985, §1) undoes it. Without this and the expanded
    percentiles, intervals from 30 to 300 documents of uneven size cover 91 to 93 %.

    Args:
        bits: float64[D, A], the paired difference of each document for A arms, mean over seeds.
        sizes: int64[D], raw bytes of each document, D ≥ 2.
        samples: number of resamples.
        seed: of the resampling.
    """
    if len(sizes) < 2:
        raise ValueError(f"a bootstrap needs at least 2 documents, got {len(sizes)}")
    total = sizes.sum()
    delta = bits.sum(axis=0) / total
    residuals = (bits - sizes[:, np.newaxis] * delta) / (1 - sizes / total)[:, np.newaxis]
    columns = np.concatenate([residuals, sizes[:, np.newaxis]], axis=1)
    sums = np.concatenate([draws @ columns for draws in _draws(len(sizes), samples, seed)])
    centre = residuals.sum(axis=0) / total
    return np.sort(delta - centre + sums[:, :-1] / sums[:, -1:], axis=0)


def _draws(count: int, samples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each document is drawn, `float64[rows, D]`, `samples` rows in all.

    The same law as drawing indices, and one product instead of a gather.
    """
    if count * samples <= _CHUNK:
        yield _few_draws(count, samples, seed)
        return
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // count)
    for start in range(0, samples, step):
        yield _multinomial(rng, count, min(step, samples - start))


@lru_cache(maxsize=1)
def _few_draws(count: int, samples: int, seed: int) -> Floats:
    return _multinomial(np.random.default_rng(seed), count, samples)


def _multinomial(rng: np.random.Generator, count: int, rows: int) -> Floats:
    return rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)


def combine(delta: float, first: Interval, second: Interval) -> Interval:
    """Return the interval of a sum of two independent errors around `delta`.

    Half-widths add in squares on either side (MOVER: Zou & Donner 2008, eq. 4). The part of the
    variance that belongs to seeds *and* documents is in both intervals, so that the result errs on
    the wide side, like the pigeonhole bootstrap (Owen 2007). A bound on the other side of `delta`
    (percentiles of a skewed law, at levels near 1) counts as `delta`.
    """
    low = math.hypot(max(0.0, delta - first.low), max(0.0, delta - second.low))
    high = math.hypot(max(0.0, first.high - delta), max(0.0, second.high - delta))
    return Interval(delta - low, delta + high)


def holm(p_values: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Holm's corrected p-values and the level at which each of m hypotheses is tested.

    In ascending order the i-th p-value (from 0) is compared with level / (m − i), until one is
    larger; that and the rest are tested at its level (Holm 1979). The chance of any false
    rejection is at most `level`, whatever the dependence: all arms share one control. Hypothesis j
    is rejected exactly where `p_values[j] < levels[j]`.

    Args:
        p_values: float64[m].
        level: of all m together.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(count, 0, -1)
    ordered = p_values[order]
    kept = ordered >= level / factors
    rejected = int(np.argmax(kept)) if kept.any() else count
    if rejected < count:
        factors[rejected:] = factors[rejected]
    corrected = np.minimum(1, np.maximum.accumulate(np.arange(count, 0, -1) * ordered))
    place = np.argsort(order, kind="stable")
    return corrected[place], (level / factors)[place]


def paired_differences(
    arms: dict[str, Floats], control: Floats, sizes: Ints, level: float, samples: int
) -> dict[str, Difference]:
    """Compare arms with one control.

    An arm's intervals are at the level at which Holm's procedure tests it, so that `both` leaves
    out zero exactly where the difference is called; each covers at least 1 − level on its own.

    Args:
        arms: name → float64[S, D], bits of each validation document by seed.
        control: float64[S, D], of the same seeds and documents.
        sizes: int64[D], raw bytes of each document.
        level: chance of calling any difference where there is none.
        samples: bootstrap resamples.
    """
    for name, bits in arms.items():
        if bits.shape != control.shape or bits.shape[1:] != sizes.shape:
            raise ValueError(f"shapes differ: {name} {bits.shape}, {control.shape}, {sizes.shape}")
    if not arms:
        return {}
    pairs = np.stack([bits - control for bits in arms.values()])
    resampled = resample_documents(pairs.mean(axis=1).T, sizes, samples)
    by_seed = pairs.sum(axis=2) / sizes.sum()
    effective = effective_documents(sizes)
    errors = [
        Errors(float(seeds.mean()), seeds, column, effective)
        for seeds, column in zip(by_seed, resampled.T, strict=True)
    ]
    corrected, levels = holm(np.array([error.p_value() for error in errors]), level)
    return {
        name: Difference(
            error.delta, own, p_value, error.seeds(own), error.documents(own), error.both(own)
        )
        for name, error, own, p_value in zip(
            arms, errors, levels.tolist(), corrected.tolist(), strict=True
        )
    }


def source_differences(
    arms: dict[str, Floats],
    control: Floats,
    sizes: Ints,
    sources: npt.NDArray[np.integer],
    level: float,
    samples: int,
) -> dict[int, dict[str, Difference]]:
    """Compare arms with one control on the documents of each source.

    Every source has an equal part of the level (Bonferroni), in which Holm's procedure is over the
    arms: the chance of calling any arm on any source where there is no difference is at most
    `level`. A source with one document has no interval, but its part of the level is not given
    away: which sources are that small depends on the split.

    Args:
        arms, control, sizes, level, samples: as for `paired_differences`.
        sources: int[D], the source of each document.

    Returns:
        source → arm → difference, for the sources with 2 documents or more.
    """
    present, counts = np.unique(sources, return_counts=True)
    found = {}
    for source in present[counts > 1].tolist():
        own = sources == source
        found[source] = paired_differences(
            {name: bits[:, own] for name, bits in arms.items()},
            control[:, own],
            sizes[own],
            level / len(present),
            samples,
        )
    return found


def verdict_of(interval: Interval, gate_passed: bool) -> Verdict:
    """Say what an interval of arm − control shows; fewer bits are better.

    A study whose gate failed shows nothing: under-trained models prefer repetitive data.
    """
    if not gate_passed:
        return "INCONCLUSIVE"
    if interval.high < 0:
        return "arm better"
    return "arm worse" if interval.low > 0 else "no difference seen"
