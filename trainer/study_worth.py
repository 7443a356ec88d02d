"""Worth per byte of each cell: a Bayesian regression of measured differences on shares.

As RegMix (Liu et al. 2024) many small runs on different mixtures tell what a mixture does; a linear
model with a normal prior (ridge) also says how sure it is. For arm a with shares x_a of its bytes
by cell, c the control's, and y_a = arm − control in bits per byte, mean over seeds:

    y_a = (x_a − c) · w + misfit + noise      w ~ N(0, τ² I)

All differences share the control's noise: their covariance is (noise / S)(I + 11ᵀ) + misfit · I.
A few arms do not determine τ, the misfit and the noise, and where one takes the likeliest of them
(empirical Bayes) intervals are far too narrow. So all three are averaged over, each by its
likelihood and a weak prior, and the posterior of w is a mixture of normal laws (Gelman et al. 2013,
Bayesian Data Analysis, §5.5; half-Cauchy priors of standard deviations: Gelman 2006).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from trainer.stats import holm
from trainer.study_records import CellWorth, SignalRank, WorthModel

Floats = npt.NDArray[np.float64]

_PRIORS = np.geomspace(1e-3, 3.0, 15)
"""Standard deviations τ that are tried, bits per byte for a whole share."""

_MISFITS = np.concatenate([[0.0], np.geomspace(1e-4, 0.1, 7)])
"""Standard deviations of what shares do not explain that are tried, bits per byte."""

PRIOR_SCALE = 0.15
"""Median of the half-Cauchy prior of τ: arms that differ by a tenth of a share, by 0.015 bpb."""

MISFIT_SCALE = 0.01
"""Median of the half-Cauchy prior of the misfit's standard deviation, bits per byte."""

_NOISE_QUANTILES = (np.arange(5) + 0.5) / 5
"""Where the law of the noise is cut: equally likely values."""

_NEGLIGIBLE = 1e-6
"""Weight below which a part of the mixture is left out."""

ALIKE = 0.01
"""Part of their bytes by which two arms differ that are one arm twice, as mixtures go."""

RESAMPLES = 2000
MIN_ARMS = 5
"""Below this many arms, control included, even a perfect ranking is no evidence: 1/12 for four."""


class Posterior(NamedTuple):
    """Moments of w: `mean: float64[K]` and `covariance: float64[K, K]`; `misfit` is a variance."""

    mean: Floats
    covariance: Floats
    misfit: float


class Mixture(NamedTuple):
    """The posterior of w: G normal laws, one for each (τ, misfit, noise).

    weights: float64[G], of sum 1; priors, misfits: float64[G], variances.
    white, target: float64[G, A, K] and float64[G, A], shares and differences divided by the
    Cholesky factor of the differences' covariance. Law g has the mean τ² whiteᵀ target and the
    covariance τ² I − τ⁴ whiteᵀ white.
    """

    weights: Floats
    priors: Floats
    misfits: Floats
    white: Floats
    target: Floats

    @property
    def means(self) -> Floats:
        """Return the mean of each law, float64[G, K]."""
        found: Floats = self.priors[:, np.newaxis] * np.einsum(
            "gak,ga->gk", self.white, self.target
        )
        return found

    def along(self, moves: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of `moves: float64[B, K]` · w, float64[G, B] each."""
        shrunk = np.square(self.white @ moves.T).sum(axis=1) * self.priors[:, np.newaxis]
        variance = self.priors[:, np.newaxis] * (np.square(moves).sum(axis=1) - shrunk)
        return self.means @ moves.T, np.sqrt(np.maximum(variance, 1e-18))


def run_noise(bpb: Floats) -> float:
    """Return the variance of one run around its arm and its seed, from bpb: float64[A, S].

    Seeds shift all arms alike (they are paired), so their means are taken out: a two-way layout
    with (A − 1)(S − 1) degrees of freedom.
    """
    rest = bpb - bpb.mean(axis=0) - bpb.mean(axis=1, keepdims=True) + bpb.mean()
    freedom = (bpb.shape[0] - 1) * (bpb.shape[1] - 1)
    return float((rest**2).sum() / max(1, freedom))


def fit_mixture(shares: Floats, differences: Floats, noise: float, seeds: int) -> Mixture:
    """Fit weights to the differences of A arms under every (τ, misfit, noise) of a grid.

    The noise has the law that its estimate leaves: noise · ν / χ²(ν), ν = A (S − 1).

    Args:
        shares: float64[A, K], arm − control.
        differences: float64[A], arm − control, mean over seeds.
        noise: variance of one run (`run_noise`).
        seeds: S.
    """
    count, cells = shares.shape
    freedom = max(1, count * (seeds - 1))
    noises = noise * freedom / special.chdtri(freedom, _NOISE_QUANTILES)
    grid = np.array(np.meshgrid(_PRIORS, _MISFITS, noises, indexing="ij")).reshape(3, -1)
    priors, misfits = np.square(grid[:2])
    parts = np.stack([priors, misfits + 1e-12, grid[2] / seeds])[..., np.newaxis, np.newaxis]
    eye = np.eye(count)
    factors = np.linalg.cholesky(
        parts[0] * (shares @ shares.T) + parts[1] * eye + parts[2] * (eye + 1)
    )
    sides = np.column_stack([differences, shares])
    solved = np.linalg.solve(factors, np.broadcast_to(sides, (len(priors), count, cells + 1)))
    target, white = solved[:, :, 0], solved[:, :, 1:]
    logs = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    logs = -0.5 * np.square(target).sum(axis=1) - logs + _log_prior(grid[0], PRIOR_SCALE)
    logs += _log_prior(np.maximum(grid[1], _MISFITS[1]), MISFIT_SCALE)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    kept = weights > _NEGLIGIBLE
    return Mixture(
        weights[kept] / weights[kept].sum(), priors[kept], misfits[kept], white[kept], target[kept]
    )


def _log_prior(values: Floats, scale: float) -> Floats:
    """Return the log density of a half-Cauchy law over ln(values): the grid's steps are equal."""
    found: Floats = np.log(values) - np.log1p(np.square(values / scale))
    return found


def fit_posterior(shares: Floats, differences: Floats, noise: float, seeds: int) -> Posterior:
    """Return the moments of `fit_mixture`, whose arguments it has."""
    return moments(fit_mixture(shares, differences, noise, seeds))


def moments(found: Mixture) -> Posterior:
    """Return mean and covariance of a mixture, and the mean of its misfits."""
    means, weights = found.means, found.weights
    mean = weights @ means
    apart = (means - mean) * np.sqrt(weights)[:, np.newaxis]
    shrunk = found.white * (found.priors * np.sqrt(weights))[:, np.newaxis, np.newaxis]
    rows = shrunk.reshape(-1, means.shape[1])
    own = float(weights @ found.priors) * np.eye(means.shape[1]) - rows.T @ rows
    return Posterior(mean, own + apart.T @ apart, float(weights @ found.misfits))


def quantile(found: Mixture, moves: Floats, share: float) -> Floats:
    """Return the value that `moves: float64[B, K]` · w is below with a chance of `share`."""
    means, spreads = found.along(moves)
    low, high = (means - 9 * spreads).min(axis=0), (means + 9 * spreads).max(axis=0)
    for _ in range(40):
        middle = (low + high) / 2
        below = found.weights @ special.ndtr((middle - means) / spreads) < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    place: Floats = high
    return place


def predict(
    shares: Floats, mean: Floats, covariance: Floats, misfit: float, noise: float, seeds: float
) -> tuple[Floats, Floats]:
    """Return the expected difference of new arms, and the standard deviation of a measured one.

    Args:
        shares: float64[B, K], arm − control.
        mean, covariance, misfit: the posterior.
        noise, seeds: of the study that will measure: arm and control have S runs each; infinitely
            many seeds leave out their noise.
    """
    variance = np.einsum("bi,ij,bj->b", shares, covariance, shares) + misfit + 2 * noise / seeds
    return shares @ mean, np.sqrt(np.maximum(variance, 0.0))


def worth_model(
    names: list[str],
    cells: list[tuple[str, int, int]],
    shares: Floats,
    bpb: Floats,
) -> WorthModel | None:
    """Fit worth to a study's arms; None with fewer than two arms besides the control, or one cell.

    Args:
        names: A arms, the control first.
        cells: name, tokens and bytes of each of K cells in the control.
        shares: float64[A, K], of each arm's bytes.
        bpb: float64[A, S].
    """
    if len(names) < 3 or len(cells) < 2:
        return None
    noise, seeds = run_noise(bpb), bpb.shape[1]
    x, y = shares[1:] - shares[0], bpb[1:].mean(axis=1) - bpb[0].mean()
    mixture = fit_mixture(x, y, noise, seeds)
    found = moments(mixture)
    apart = ~alike(x)
    left_out = np.array([_left_out(x, y, noise, seeds, i, apart[i]) for i in range(len(y))])
    # More of cell k by a unit of share, the rest in proportion: e_k − c, over 1 − c_k.
    moves = (np.eye(len(cells)) - shares[0]) / np.maximum(1 - shares[0], 1e-9)[:, np.newaxis]
    effects = moves @ found.mean
    lows, highs = (quantile(mixture, moves, share) for share in (0.025, 0.975))
    ranks = len(y) >= MIN_ARMS - 1 and np.ptp(left_out) > 0 and np.ptp(y) > 0
    return WorthModel(
        arms=names,
        cells=[
            CellWorth(
                cell=cell,
                tokens=tokens,
                bytes=size,
                effect=float(effect),
                interval=(float(low), float(high)),
            )
            for (cell, tokens, size), effect, low, high in zip(
                cells, effects, lows, highs, strict=True
            )
        ],
        weights=found.mean.tolist(),
        covariance=found.covariance.tolist(),
        noise=noise,
        misfit=found.misfit,
        left_out_rank=spearman(left_out, y) if ranks else None,
        left_out_error=float(np.sqrt(np.mean((left_out - y) ** 2))),
        plain_error=float(np.sqrt(np.mean(y**2))),
    )


def alike(shares: Floats) -> npt.NDArray[np.bool_]:
    """Return which of A arms hold the same by cell, to within `ALIKE`: bool[A, A]."""
    moved = np.abs(shares[:, np.newaxis] - shares[np.newaxis]).sum(axis=2) / 2
    same: npt.NDArray[np.bool_] = moved <= ALIKE
    return same


def _left_out(
    x: Floats, y: Floats, noise: float, seeds: int, index: int, others: npt.NDArray[np.bool_]
) -> float:
    """Predict one arm's difference from the others alone: those that are not like it."""
    found = fit_mixture(x[others], y[others], noise, seeds)
    return float(x[index] @ (found.weights @ found.means))


def mean_ranks(values: Floats) -> Floats:
    """Return the rank of each value from 1, float64[n]; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def spearman(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation ρ; equal values share their rank, constants give 0."""
    a, b = mean_ranks(first), mean_ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def signal_ranks(
    means: dict[str, Floats], bpb: Floats, resamples: int = RESAMPLES, seed: int = 20_261_124
) -> list[SignalRank]:
    """Correlate each signal's mean over arms with the arms' worth (control − arm); best first.

    Args:
        means: signal → float64[A], NaN where an arm has none; such signals are left out.
        bpb: float64[A, S], the control first.
        resamples: permutations of arms.
        seed: of these.
    """
    if len(bpb) < MIN_ARMS:
        return []
    rng = np.random.default_rng(seed)
    worth = bpb[0].mean() - bpb.mean(axis=1)
    orders = np.array([rng.permutation(len(worth)) for _ in range(resamples)])
    found = []
    for name, values in means.items():
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        rho = spearman(values, worth)
        ranks = _standard(mean_ranks(values)[np.newaxis, :])[0]
        shuffled = _standard(mean_ranks(worth)[orders]) @ ranks
        beyond = int(np.count_nonzero(np.abs(shuffled) >= abs(rho) - 1e-12))
        p_value = (beyond + 1) / (resamples + 1)
        found.append(SignalRank(signal=name, rho=rho, p_value=p_value))
    return sorted(_corrected(found), key=lambda rank: -abs(rank.rho))


def _standard(ranks: Floats) -> Floats:
    """Centre each row of ranks and give it length 1."""
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    scaled: Floats = centred / np.where(norm == 0, 1, norm)
    return scaled


def _corrected(found: list[SignalRank]) -> list[SignalRank]:
    """Correct the p-values for their number (Holm 1979)."""
    if not found:
        return []
    values, _ = holm(np.array([rank.p_value for rank in found]), 0.05)
    return [
        SignalRank(signal=r.signal, rho=r.rho, p_value=float(p))
        for r, p in zip(found, values, strict=True)
    ]
