"""Places on a chart, in percent of the plot's width and height (y grows downwards).

The template draws shapes as stretched SVG and labels as HTML at the same percentages, so that a
chart fits any width and its text is never scaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINUS = "\u2212"
"""The sign that is as wide as a plus."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return at most `count` + 1 multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    raw = (high - low) / max(count, 1)
    if raw <= 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor >= raw / power - 1e-9)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [float(round(number * step, 12)) for number in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Write tick values with as many decimals as their spacing needs, and no more."""
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) if values else 1.0
    decimals = max(0, -int(np.floor(np.log10(step) + 1e-9))) if step else 0
    return [f"{value:.{decimals}f}".replace("-", MINUS) for value in values]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart until neighbours are `gap` from each other, within [0, 100] if they fit."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, dtype=np.float64)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    limit = 100.0
    for i in range(len(moved) - 1, -1, -1):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    result = np.empty_like(moved)
    result[order] = moved
    return [float(value) for value in result]


def quantity(value: float, digits: int = 3) -> str:
    """Write a count short: 150000 → `150k`, 1250000 → `1.25M`."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.{digits}g}{unit}"
        value /= 1000
    return f"{value:.{digits}g}T"
