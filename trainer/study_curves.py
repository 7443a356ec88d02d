"""What learning curves say beyond their last point: tokens to a target, data worth, area, need.

Everything reads a curve in ln(tokens), in which loss is nearly straight over a factor of a few. The
points are measured on a part of the validation: a difference comes from all of it, the curves say
how fast it is gained.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stats import t_interval

Floats = npt.NDArray[np.float64]

FURTHEST = 10.0
"""Up to how many times its tokens a curve is extended; beyond that the answer is unknown."""

NEAR = 4.0
"""Over which factor of tokens before the decay a curve is fitted, to know where it would end."""

FLOOR = 0.25
"""Irreducible part of the loss, as a share of its value, in that fit. Together with `NEAR` it comes
nearest to what separate runs of 0.25 to 2 M tokens say (docs/design/study.md); 0.5 gives 4 % more,
a straight line 4 % less."""

_FLOORS = (0.0, 0.25, 0.5, 0.75)
"""Irreducible parts of the loss, as shares of the curve's last value, that are tried."""


class Curve(NamedTuple):
    """A learning curve: `tokens: float64[n]` trained on, ascending; `bpb: float64[n]` there."""

    tokens: Floats
    bpb: Floats


class Measured(NamedTuple):
    """A difference arm − control with its interval, bits per byte."""

    delta: float
    low: float
    high: float


class Multiplier(NamedTuple):
    """How many times its tokens an arm's data is worth of the control's; None is unknown."""

    value: float
    interval: tuple[float | None, float | None]


class Need(NamedTuple):
    """More tokens a run would need, at least and at most; None is unknown (more than tried)."""

    low: float | None
    high: float | None


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean over seeds of curves with the same points.

    Raises:
        ValueError: the points differ.
    """
    if any(not np.array_equal(curve.tokens, curves[0].tokens) for curve in curves):
        raise ValueError("curves have different points")
    return Curve(curves[0].tokens, np.mean([curve.bpb for curve in curves], axis=0))


def tokens_to_target(curve: Curve, target: float) -> float | None:
    """Return after how many tokens a curve has come down to `target` for good.

    Linear in ln(tokens) between the last point above and the next. None where the curve ends above,
    or never was above: what lies outside of it is not guessed.
    """
    above = np.flatnonzero(curve.bpb > target)
    place = int(above[-1]) + 1 if len(above) else 0
    if place == len(curve.bpb):
        return None
    if curve.bpb[place] == target:
        return float(curve.tokens[place])
    if place == 0:
        return None
    (x0, x1), (y0, y1) = (
        np.log(curve.tokens[place - 1 : place + 1]),
        curve.bpb[place - 1 : place + 1],
    )
    return float(np.exp(x0 + (x1 - x0) * (y0 - target) / (y0 - y1)))


def undecayed(curve: Curve, decay_from: float) -> Curve | None:
    """Return a run's curve as it would be had its learning rate not decayed at the end.

    Its points before the decay, and one more at the run's last token, on a power law (with a floor
    of `FLOOR` times the last value) through those of the last factor of `NEAR` before the decay.

    Args:
        curve: of a run, or the mean of several.
        decay_from: tokens after which the learning rate decays.

    Returns:
        None where fewer than 3 points lie there, or they do not fall.
    """
    before = curve.tokens <= decay_from
    tokens, bpb = curve.tokens[before], curve.bpb[before]
    near = tokens * NEAR >= tokens.max(initial=0.0)
    if near.sum() < 3:
        return None
    lowest = FLOOR * float(bpb[-1])
    if (bpb[near] <= lowest).any():
        return None
    slope, height = np.polyfit(np.log(tokens[near]), np.log(bpb[near] - lowest), 1)
    if slope >= 0:
        return None
    end = curve.tokens[-1]
    if end > tokens[-1]:
        tokens = np.append(tokens, end)
        bpb = np.append(bpb, lowest + np.exp(height + slope * np.log(end)))
    return Curve(tokens, bpb)


def data_multiplier(delta: float, arm: Curve | None, control: Curve | None) -> float | None:
    """Return how many tokens of the control one token of the arm is worth, at equal loss.

    What the decay gains hardly depends on how long a run is (Hägele et al. 2024, §3). So runs of
    other lengths, each with its own decay, lie as far below each other as one curve without decay
    falls between these lengths. The better side is asked after how many of its tokens it was as far
    above its own end as the other is at the end.

    Args:
        delta: arm − control after the same number of tokens, bits per byte of all documents.
        arm, control: curves without decay (`undecayed`); only that of the better side is read.

    Returns:
        None where that curve is unknown, or begins below.
    """
    better = arm if delta <= 0 else control
    if better is None:
        return None
    reached = tokens_to_target(better, float(better.bpb[-1]) + abs(delta))
    if reached is None:
        return None
    ratio = float(better.tokens[-1]) / reached
    return ratio if delta <= 0 else 1 / ratio


def effective_data(
    arms: list[Curve], controls: list[Curve], difference: Measured, decay_from: float, level: float
) -> Multiplier | None:
    """Return the multiplier of a difference, and of both ends of its interval.

    The curves have an error of their own. So at each end the multiplier is that by the curves of
    single seeds, at the far end of their t interval, but never on the other side of 1: the interval
    leaves out 1 exactly where that of the difference leaves out 0.

    Args:
        arms, controls: curves by seed, seeds paired.
        difference: arm − control and its interval, bits per byte of all validation documents.
        decay_from: tokens after which the learning rate decays.
        level: 1 − coverage of the interval; an end of it is None where a seed's is unknown.

    Returns:
        None where it is unknown: see `data_multiplier`.
    """
    whole = (undecayed(mean_curve(curves), decay_from) for curves in (arms, controls))
    value = data_multiplier(difference.delta, *whole)
    if value is None:
        return None
    pairs = [
        (undecayed(one, decay_from), undecayed(other, decay_from))
        for one, other in zip(arms, controls, strict=True)
    ]

    def end(delta: float, side: int) -> float | None:
        by_seed = [data_multiplier(delta, *pair) for pair in pairs]
        known = [multiplier for multiplier in by_seed if multiplier is not None]
        if len(known) < max(2, len(by_seed)):
            return None
        far = t_interval(np.log(known), level)[side]
        return float(np.exp(max(0.0, far) if delta <= 0 else min(0.0, far)))

    return Multiplier(value, (end(difference.high, 0), end(difference.low, 1)))


def area(curve: Curve) -> float | None:
    """Return the mean height of a curve over ln(tokens) (trapezoids), bits per byte.

    None where a curve has fewer than two points.
    """
    if len(curve.tokens) < 2:
        return None
    x = np.log(curve.tokens)
    return float(np.trapezoid(curve.bpb, x) / (x[-1] - x[0]))


def tokens_needed(curve: Curve, gaps: tuple[float, float], decay_from: float) -> Need:
    """Return how many more tokens would take a run `gaps` bits per byte further down.

    The curve before the decay of the learning rate is extended: a longer run has its decay too, at
    its own end, and gains about the same by it (Hägele et al. 2024, §3). Curves of the form
    E + A·T^(−α) are fitted with several floors E, and a straight line in ln(T), which bends less
    than any of them; the smallest and largest answers are the interval. It spans the forms that a
    curve may take, not the noise: more than `FURTHEST` times the run is unknown.

    Args:
        curve: at least 3 points before the decay, else both ends are unknown.
        gaps: smallest and largest distance to go, bits per byte.
        decay_from: tokens after which the learning rate decays.
    """
    before = curve.tokens <= decay_from
    x, y = np.log(curve.tokens[before]), curve.bpb[before]
    if len(x) < 3:
        return Need(None, None)
    end = float(curve.tokens[-1])
    answers = [
        [_line_needs(x, y, end, gap), *(_power_needs(x, y, end, gap, f) for f in _FLOORS)]
        for gap in gaps
    ]
    lows = [need for need in answers[0] if need is not None]
    highs = [need for need in answers[1] if need is not None]
    return Need(min(lows, default=None), max(highs) if len(highs) == len(answers[1]) else None)


def _line_needs(x: Floats, y: Floats, end: float, gap: float) -> float | None:
    slope = float(np.polyfit(x, y, 1)[0])
    return _more(end, gap / -slope) if slope < 0 else None


def _power_needs(x: Floats, y: Floats, end: float, gap: float, floor: float) -> float | None:
    """Fit ln(y − E) = ln A − α x with E a share of the last value; solve for the tokens."""
    lowest = floor * float(y[-1])
    if (y <= lowest).any():
        return None
    slope, height = np.polyfit(x, np.log(y - lowest), 1)
    now = float(np.exp(height + slope * np.log(end)))
    if slope >= 0 or now <= gap:
        return None
    return _more(end, float(np.log((now - gap) / now) / slope))


def _more(end: float, log_ratio: float) -> float | None:
    return end * float(np.expm1(log_ratio)) if log_ratio <= np.log(FURTHEST) else None
