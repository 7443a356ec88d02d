"""What learning curves say beyond their last point: tokens to a target, data worth, area, need.

Everything reads a curve in ln(tokens), in which loss is nearly straight over a factor of a few. The
points are measured on a part of the validation: a difference comes from all of it, the curves say
how fast it is gained.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

FURTHEST = 10.0
"""Up to how many times its tokens a curve is extended; beyond that the answer is unknown."""

NEAR = 4.0
"""Over which factor of tokens before the decay a curve is fitted, to know where it would end."""

FLOOR = 0.25
"""Irreducible part of the loss, as a share of its last value before the decay, in that fit. It
comes nearest to what separate runs of 0.25 to 2 M tokens say (docs/design/study.md)."""

OTHER_FLOORS = (0.0, 0.5, 0.75, None)
"""Other forms that a curve may have; None is a straight line in ln(tokens)."""

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
    """How many times its tokens an arm's data is worth of the control's, with an interval.

    The curves tell of 1 / `reach` to `reach`. What lies outside is not guessed: `value` is then
    None, and `beyond` says on which side; an end of the interval that is None has no bound there.
    """

    value: float | None
    interval: tuple[float | None, float | None]
    reach: float | None = None
    beyond: Literal["<", ">"] | None = None


class Law(NamedTuple):
    """A curve without decay: it falls by `slope` · `excess` with ln(tokens) at the run's end.

    bpb = floor + excess · (tokens / end)^(−slope), slope > 0; a straight line has no `excess`, and
    falls by `slope`.
    """

    slope: float
    excess: float | None


class Family(NamedTuple):
    """What may be said of a curve without decay: the law, and those that tell its error.

    `forms` have other floors. By `decays` the decay's gain follows what is above the floor as a run
    gets longer, or does the opposite; by `law` it is the same at every length. `left_out` are
    fitted without one of the points each (None: does not fall). `reach`: how many times the tokens
    of the first point the run's are.
    """

    law: Law
    forms: list[Law]
    decays: list[Law]
    left_out: list[Law | None]
    reach: float


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


def fit_family(curve: Curve, decay_from: float) -> Family | None:
    """Fit all forms to the points of the last factor of `NEAR` before the decay.

    Args:
        curve: of a run, or the mean of several.
        decay_from: tokens after which the learning rate decays.

    Returns:
        None where fewer than 3 points lie there, or they do not fall.
    """
    before = curve.tokens <= decay_from
    near = before & (curve.tokens * NEAR >= curve.tokens[before].max(initial=0.0))
    part = Curve(curve.tokens[near], curve.bpb[near])
    if len(part.tokens) < 3:
        return None
    end = Curve(curve.tokens[-1:], curve.bpb[-1:])
    law = _fit(part, end, FLOOR)
    if law is None:
        return None
    forms = [_fit(part, end, floor) for floor in OTHER_FLOORS]
    decays = [_fit(part, end, FLOOR, follows) for follows in (1, -1)]
    rest = [Curve(*(np.delete(axis, i) for axis in part)) for i in range(len(part.tokens))]
    return Family(
        law=law,
        forms=[form for form in forms if form is not None],
        decays=[form for form in decays if form is not None],
        left_out=[_fit(points, end, FLOOR) for points in rest],
        reach=float(end.tokens[0] / part.tokens[0]),
    )


def _fit(part: Curve, end: Curve, floor: float | None, follows: int = 0) -> Law | None:
    """Fit one form (see `Family`); None where the points do not fall, or lie below the floor."""
    x, y = np.log(part.tokens), part.bpb
    lowest = 0.0 if floor is None else floor * float(y[-1])
    if (y <= lowest).any():
        return None
    slope, height = np.polyfit(x, y if floor is None else np.log(y - lowest), 1)
    if slope >= 0:
        return None
    if floor is None:
        return Law(-float(slope), None)
    excess = float(np.exp(height + slope * np.log(end.tokens[0])))
    gain = min(max(excess - (float(end.bpb[0]) - lowest), 0.0), excess / 2)
    return Law(-float(slope), excess - follows * gain)


def log_multiplier(law: Law, gap: float) -> float:
    """Return ln of how many times fewer tokens a curve needs to be `gap` ≥ 0 above its own end."""
    return (gap if law.excess is None else math.log1p(gap / law.excess)) / law.slope


def curve_error(family: Family, gap: float, level: float) -> tuple[float, float]:
    """Return how far ln(ln multiplier) may be below and above what the family's law says.

    Three parts, in squares: what other forms of the curve say, what other gains of the decay say,
    and the t interval by leaving out one point after the other (jackknife: Efron & Tibshirani 1993,
    eq. 11.5; the degrees of freedom are those of a line). All are relative to the law's slope, so
    the sign of a difference stays.
    """
    gap = max(gap, 1e-9)  # the limit: all is in proportion to the gap

    def place(law: Law) -> float:
        return math.log(log_multiplier(law, gap))

    forms = [0.0, *(place(law) - place(family.law) for law in family.forms)]
    decays = [0.0, *(place(law) - place(family.law) for law in family.decays)]
    known = np.array([place(law) for law in family.left_out if law is not None])
    count = len(family.left_out)
    if len(known) < count:
        return math.inf, math.inf
    error = math.sqrt((count - 1) * float(known.var()))
    noise = float(special.stdtrit(count - 2, 1 - level / 2)) * error
    return (
        math.hypot(noise, min(forms), min(decays)),
        math.hypot(noise, max(forms), max(decays)),
    )


def effective_data(
    arms: list[Curve], controls: list[Curve], difference: Measured, decay_from: float, level: float
) -> Multiplier | None:
    """Return how many tokens of the control one token of the arm is worth, at equal loss.

    What the decay gains hardly depends on how long a run is (Hägele et al. 2024, §3). So runs of
    other lengths, each with its own decay, lie as far below each other as one curve without decay
    falls between these lengths. The better side is asked after how many of its tokens it was as far
    above its own end as the other is at the end.

    The interval adds the difference's and the curve's (`curve_error`) in squares (MOVER, see
    `trainer.stats.combine`): of ln(multiplier), or of its logarithm where the difference's interval
    leaves out zero, since an error of the slope does not change the sign. So it is never on
    another side of 1 than the difference's is of 0.

    Args:
        arms, controls: curves by seed, with the same points.
        difference: arm − control and its interval, bits per byte of all validation documents.
        decay_from: tokens after which the learning rate decays.
        level: 1 − coverage of the interval.

    Returns:
        None where the curve of the better side is unknown: see `fit_family`.
    """
    arm, control = (fit_family(mean_curve(curves), decay_from) for curves in (arms, controls))
    delta, *ends = difference
    better, other = (arm, control) if delta <= 0 else (control, arm)
    if better is None:
        return None
    sign = 1 if delta <= 0 else -1
    near, far = sorted(-sign * end for end in ends)  # of what the better side is better by
    value = log_multiplier(better.law, abs(delta))
    outer = log_multiplier(better.law, far)
    down, up = curve_error(better, abs(delta), level)
    if near > 0:
        inner = log_multiplier(better.law, near)
        low = value * math.exp(-math.hypot(math.log(value / inner), down))
        high = value * _exp(math.hypot(math.log(outer / value), up))
    else:
        inner = -math.inf if other is None else -log_multiplier(other.law, -near)
        low = value - math.hypot(value - inner, value * -math.expm1(-down))
        high = value + math.hypot(outer - value, value * (_exp(up) - 1) if value else 0.0)
    return _within(sign, value, (low, high), math.log(better.reach))


def _exp(power: float) -> float:
    """Return e^power, infinite where that is no number."""
    return math.exp(power) if power < 700 else math.inf


def _within(sign: int, value: float, ends: tuple[float, float], reach: float) -> Multiplier:
    """Cut logarithms at ±`reach`, and turn them over where the control is the better side."""
    low = None if ends[0] < -reach else math.exp(sign * min(ends[0], reach))
    high = None if ends[1] > reach else math.exp(sign * ends[1])
    beyond: Literal["<", ">"] = ">" if sign > 0 else "<"
    return Multiplier(
        value=None if value > reach else math.exp(sign * value),
        interval=(low, high) if sign > 0 else (high, low),
        reach=math.exp(reach),
        beyond=beyond if value > reach else None,
    )


def value_words(found: Multiplier) -> str:
    """Write a multiplier without its interval; beyond the reach of the curves as < or > that."""
    if found.value is not None:
        return f"×{found.value:.2f}"
    if found.reach is None or found.beyond is None:
        return "unknown"
    return f"< ×{1 / found.reach:.2f}" if found.beyond == "<" else f"> ×{found.reach:.2f}"


def multiplier_words(found: Multiplier) -> str:
    """Write a multiplier with its interval; an older record without a reach has unknown ends."""
    value = value_words(found)
    if value == "unknown":
        return value
    low, high = found.interval
    least, most = "unknown", "unknown"
    if found.reach is not None:
        least, most = f"< {1 / found.reach:.2f}", f"> {found.reach:.2f}"
    return (
        f"{value} ({least if low is None else f'{low:.2f}'}"
        f" to {most if high is None else f'{high:.2f}'})"
    )


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
