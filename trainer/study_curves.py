"""What learning curves say beyond their last point: tokens to a target, data worth, area, need.

Everything reads a curve in ln(tokens), in which loss is nearly straight over a factor of a few, and
inside a run: a point in the middle has not had the decay of the learning rate that a run of that
length would have had, so a multiplier comes out nearer to 1 than separate runs would show.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stats import Interval, t_interval

Floats = npt.NDArray[np.float64]

FURTHEST = 10.0
"""Up to how many times its tokens a curve is extended; beyond that the answer is unknown."""

_FLOORS = (0.0, 0.25, 0.5, 0.75)
"""Irreducible parts of the loss, as shares of the curve's last value, that are tried."""


class Curve(NamedTuple):
    """A learning curve: `tokens: float64[n]` trained on, ascending; `bpb: float64[n]` there."""

    tokens: Floats
    bpb: Floats


class Multiplier(NamedTuple):
    """How many times its tokens an arm's data is worth of the control's; interval over seeds."""

    value: float
    interval: Interval | None


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


def data_multiplier(arm: Curve, control: Curve) -> float | None:
    """Return how many tokens of the control one token of the arm is worth, at equal loss.

    An arm that ends worse: the control's tokens to the arm's last value, over the arm's tokens
    (below 1). One that ends better: the control's tokens over the arm's tokens to the control's
    last value (above 1). Both interpolate; None where a curve would have to be extended.
    """
    if arm.bpb[-1] > control.bpb[-1]:
        needed = tokens_to_target(control, float(arm.bpb[-1]))
        return None if needed is None else needed / float(arm.tokens[-1])
    needed = tokens_to_target(arm, float(control.bpb[-1]))
    return None if needed is None else float(control.tokens[-1]) / needed


def effective_data(arms: list[Curve], controls: list[Curve], level: float) -> Multiplier | None:
    """Return the multiplier of the mean curves, with a t interval of its logarithm over seeds.

    Args:
        arms, controls: curves by seed, seeds paired.
        level: 1 − coverage of the interval; it is None where a seed's own multiplier is unknown.
    """
    value = data_multiplier(mean_curve(arms), mean_curve(controls))
    if value is None:
        return None
    by_seed = [data_multiplier(arm, control) for arm, control in zip(arms, controls, strict=True)]
    known = [multiplier for multiplier in by_seed if multiplier is not None]
    if len(known) < len(by_seed) or len(known) < 2:
        return Multiplier(value, None)
    low, high = np.exp(t_interval(np.log(known), level))
    return Multiplier(value, Interval(float(low), float(high)))


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
