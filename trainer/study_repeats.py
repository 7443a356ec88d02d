"""What reading data again is worth: the data-constrained scaling law, fitted to repeat arms.

Muennighoff et al. 2023 ("Scaling Data-Constrained Language Models") replace the tokens D of the
Chinchilla law by fewer, effective ones. With U unique tokens and R = D / U − 1 repetitions,

    L(N, D) = E + A / N'^α + B / D'^β      D' = U + U · R* · (1 − e^(−R / R*))     (their eq. 5)

and the same for parameters beyond what U tokens can use (eq. 6, constant R_N*). In one study N is
one number, so E + A / N'^α is a constant here: it is fitted together with B, β and R_D*. R_N* is
not determined by runs of one size (`trainer/study_sizes.py` takes several).

A point of a curve before the decay of the learning rate has D = tokens so far; the last one gains γ
by the decay, the same in all arms. Given β and R*, the law is linear in (E, B, γ): least squares
inside, a grid of (β, ln R*) that is refined around its best point outside. Each seed is fitted on
its own, and the interval is the t interval of ln R* over seeds.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stats import t_interval
from trainer.study_records import RepeatFit

Floats = npt.NDArray[np.float64]

BETAS = (0.05, 1.5)
"""Exponents that are tried; the paper has 0.35."""

CONSTANTS = (0.05, 500.0)
"""R* that are tried; the paper has 15.4. At an end of this range the runs do not determine it."""

_STEPS = 25
_ZOOMS = 4

ONE_SIZE = "R_N* needs studies of three model sizes or more (assay study fit)"


class Points(NamedTuple):
    """Validation of one seed's runs, n points: tokens read, unique tokens, bits per byte, last.

    tokens, unique, bpb: float64[n]; decayed: bool[n], whether the learning rate has decayed there.
    """

    tokens: Floats
    unique: Floats
    bpb: Floats
    decayed: npt.NDArray[np.bool_]


class Law(NamedTuple):
    """L = floor + scale / D'^beta − gain (where decayed), with the repetition constant R*."""

    floor: float
    scale: float
    beta: float
    constant: float
    gain: float
    error: float


def effective_tokens(tokens: Floats, unique: Floats, constant: float | Floats) -> Floats:
    """Return D' of eq. 5, float64[n]; up to the first reading of `unique` tokens it is `tokens`."""
    once = np.minimum(tokens, unique)
    again = np.maximum(tokens / unique - 1, 0.0)
    return once + once * constant * -np.expm1(-again / constant)


def fit_law(points: Points) -> Law | None:
    """Fit one seed's curves by least squares; None with fewer points than parameters, or a rise."""
    if len(points.bpb) < 6:
        return None
    low = np.array([np.log(BETAS[0]), np.log(CONSTANTS[0])])
    high = np.array([np.log(BETAS[1]), np.log(CONSTANTS[1])])
    best: Law | None = None
    for _ in range(_ZOOMS):
        axes = np.exp(np.linspace(low, high, _STEPS))
        found = _best_of(points, axes[:, 0], axes[:, 1])
        if found is None:
            return best
        best = found if best is None or found.error < best.error else best
        middle = np.log([best.beta, best.constant])
        step = 1.5 * (high - low) / (_STEPS - 1)
        low = np.maximum(middle - step, np.log([BETAS[0], CONSTANTS[0]]))
        high = np.minimum(middle + step, np.log([BETAS[1], CONSTANTS[1]]))
    return best


def _best_of(points: Points, betas: Floats, constants: Floats) -> Law | None:
    """Return the law with the least error whose (β, R*) is a pair of the two; scale > 0."""
    beta, constant = (axis.reshape(-1, 1) for axis in np.meshgrid(betas, constants))
    fall = effective_tokens(points.tokens, points.unique, constant)
    fall = (fall / points.tokens.max()) ** -beta  # near 1, so that the systems are well-conditioned
    floors, scales, gains, errors = _least_squares(fall, points)
    errors = np.where(scales > 0, errors, np.inf)
    if not np.isfinite(errors).any():
        return None
    place = int(np.argmin(errors))
    own = float(beta[place, 0])
    return Law(
        floor=float(floors[place]),
        scale=float(scales[place]) * float(points.tokens.max()) ** own,
        beta=own,
        constant=float(constant[place, 0]),
        gain=float(gains[place]),
        error=float(errors[place]),
    )


def _least_squares(fall: Floats, points: Points) -> tuple[Floats, Floats, Floats, Floats]:
    """Solve bpb = floor + scale · fall − gain · decayed for each row of `fall: float64[G, n]`.

    Returns floor ≥ 0, scale, gain and the root mean square error, float64[G] each.
    """
    middle = fall.mean(axis=1, keepdims=True)
    ones = np.ones_like(fall)
    decayed = np.broadcast_to(-points.decayed.astype(np.float64), fall.shape)
    free = _solve(np.stack([ones, fall - middle, decayed], axis=2), points.bpb)
    floor = free[:, 0] - free[:, 1] * middle[:, 0]
    tied = _solve(np.stack([fall, decayed], axis=2), points.bpb)
    below = floor < 0
    floor = np.where(below, 0.0, floor)
    scale = np.where(below, tied[:, 0], free[:, 1])
    gain = np.where(below, tied[:, 1], free[:, 2])
    fitted = floor[:, np.newaxis] + scale[:, np.newaxis] * fall + gain[:, np.newaxis] * decayed
    return floor, scale, gain, np.sqrt(np.mean((fitted - points.bpb) ** 2, axis=1))


def _solve(columns: Floats, values: Floats) -> Floats:
    """Return the least-squares weights of `columns: float64[G, n, k]` for `values: float64[n]`.

    A ridge of 1e-12 gives a column of zeros (no point has decayed) the weight 0.
    """
    count = columns.shape[2]
    gram = np.einsum("gni,gnj->gij", columns, columns) + 1e-12 * np.eye(count)
    moments = np.einsum("gni,n->gi", columns, values)
    return np.linalg.solve(gram, moments[:, :, np.newaxis])[:, :, 0]


def fit_repeats(seeds: list[Points], arms: list[str], level: float = 0.05) -> RepeatFit:
    """Fit R_D* to repeat arms and the arm they repeat, seed by seed.

    Args:
        seeds: the points of each seed.
        arms: names of the arms that they come from.
        level: 1 − coverage of the interval.
    """
    laws = [fit_law(points) for points in seeds]
    inside = [
        law.constant
        for law in laws
        if law is not None and 1.1 * CONSTANTS[0] < law.constant < CONSTANTS[1] / 1.1
    ]
    fitted = [law.error for law in laws if law is not None]
    value, interval, reason = None, None, ONE_SIZE
    if len(inside) == len(laws) and len(inside) > 1:
        logs = np.log(inside)
        value = float(np.exp(logs.mean()))
        low, high = t_interval(logs, level)
        interval = (float(np.exp(low)), float(np.exp(high)))
    elif len(fitted) < len(laws):
        reason = f"the curves have too few points, or do not fall; {ONE_SIZE}"
    else:
        reason = (
            f"{len(laws) - len(inside)} of {len(laws)} seeds fit an R_D* at an end of the range"
            f" {CONSTANTS[0]:g} to {CONSTANTS[1]:g}, which says that their curves do not determine"
            f" it: more tokens, or more repetitions; {ONE_SIZE}"
        )
    return RepeatFit(
        r_d_star=value,
        r_d_interval=interval,
        r_n_star=None,
        r_n_interval=None,
        arms=arms,
        error=float(np.mean(fitted)) if fitted else None,
        reason=reason,
    )
