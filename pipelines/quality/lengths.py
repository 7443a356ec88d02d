"""What a measure of bits per byte usually is at each length, and how far a document is from it.

Compressors start cold, so the same prose takes 5.5 bits per byte at 256 bytes and 2.6 at 64 KB: the
raw number is mostly a measure of length. A curve fitted on pinned good documents takes that away.
Documents far from it on either side are suspicious: below it what repeats itself or is known by
heart, above it noise.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

VERSION = "length-curve-v1 (middle pieces of powers of 2, median and 16-84 % spread)"

SIZES = tuple(1 << power for power in range(6, 18))
"""Lengths at which a curve may have knots: 64 B to 128 KiB."""

LEAST = 16
"""A length of fewer documents has no knot."""

_ONE_SIGMA = (0.158655, 0.5, 0.841345)
_LEAST_SPREAD = 0.01
_NONE = np.empty(0, np.float32)

Float32 = npt.NDArray[np.float32]
Pieces = dict[int, Float32]
"""Size → bits per byte of pieces of that many bytes, one a document."""
Measure = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], npt.NDArray[np.float32]]


class Curve(NamedTuple):
    """A fitted curve: at each of the rising `sizes` (bytes), the middle and spread of the measure.

    `centre` is the median and `spread` half the distance between the quantiles that hold 68 % of
    the documents, as a standard deviation does of normal ones; both in bits per byte.
    """

    sizes: tuple[int, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]


def pieces(measure: Measure, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Pieces:
    """Measure the middle `size` bytes of every document that has them, for each of `SIZES`.

    The middle, because headings and tables of contents are no more typical of short documents than
    of long ones.

    Args:
        measure: a function of (data, offsets) to bits per byte, float32 (n).
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
    """
    begins, lengths = offsets[:-1], np.diff(offsets)
    found = {}
    for size in SIZES:
        long = lengths >= size
        if long.any():
            middle = begins[long] + (lengths[long] - size) // 2
            text = np.concatenate([data[begin : begin + size] for begin in middle])
            found[size] = measure(text, np.arange(len(middle) + 1) * size)
    return found


def fit(parts: Sequence[Pieces]) -> Curve:
    """Fit a curve to measured pieces of reference documents.

    Raises:
        ValueError: fewer than `LEAST` documents of `SIZES[0]` bytes.
    """
    knots = []
    for size in SIZES:
        values = np.concatenate([part[size] for part in parts if size in part] or [_NONE])
        if len(values) < LEAST:
            break
        low, middle, high = np.quantile(values.astype(np.float64), _ONE_SIGMA).tolist()
        knots.append((size, middle, max((high - low) / 2, _LEAST_SPREAD)))
    if not knots:
        raise ValueError(f"a length curve needs {LEAST} documents of {SIZES[0]} bytes or more")
    return Curve(*zip(*knots, strict=True))


def z_scores(
    curve: Curve, lengths: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return (value - centre) / spread at each document's length, float32 (n); 0 for empty ones.

    Between knots, centre and spread are linear in the logarithm of the length; beyond them, they
    stay.
    """
    at = np.log2(np.maximum(lengths, 1))
    knots = np.log2(curve.sizes)
    centre, spread = (np.interp(at, knots, ys) for ys in (curve.centre, curve.spread))
    return np.where(lengths > 0, (values - centre) / spread, 0).astype(np.float32)
