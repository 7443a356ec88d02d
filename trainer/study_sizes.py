"""The data-constrained law over model sizes: R_D* and R_N* from several studies' repeat arms.

Muennighoff et al. 2023 extend L(N, D) = E + A / N^α + B / D^β (Hoffmann et al. 2022) by effective
tokens D' (eq. 5) and effective parameters (eq. 6)

    N' = U_N + U_N · R_N* · (1 − e^(−R_N / R_N*))      R_N = N / U_N − 1

where U_N is what U_D unique tokens can use: the N that is optimal for U_D, G · (G · U_D)^(β/α) with
G = (αA / βB)^(1/(α+β)). All eight unknowns (E, A, α, B, β, the gain of the decay, R_D*, R_N*) are
fitted together by least squares, from several starts, since models that are large for their data
have N' < N on every point. Points are those of `trainer/study_repeats.py`; seeds are fitted one by
one, and intervals are t intervals of ln R*.
"""

import itertools
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import optimize

from shards.errors import TrainingError
from trainer.records import StudyRecord
from trainer.stats import t_interval
from trainer.study_records import RepeatFit
from trainer.study_repeats import CONSTANTS, effective_tokens

Floats = npt.NDArray[np.float64]

EXPONENTS = (0.05, 1.5)
MIN_SIZES = 3
"""E, A and α are three unknowns of the size alone."""


class SizedPoints(NamedTuple):
    """Points of one seed over all studies: parameters, tokens read, unique tokens, bits per byte.

    float64[n] each; decayed: float64[n], 1 where the learning rate has decayed.
    """

    parameters: Floats
    tokens: Floats
    unique: Floats
    bpb: Floats
    decayed: Floats


class SizeLaw(NamedTuple):
    """E + A / N^alpha + B / D^beta − gain (where decayed)."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    gain: float


class SizeFit(NamedTuple):
    """A law with its constants R_D* (`data`) and R_N* (`size`)."""

    law: SizeLaw
    data: float
    size: float


def usable_parameters(law: SizeLaw, unique: Floats) -> Floats:
    """Return U_N, the parameters that are optimal for so many tokens, float64[n]."""
    ratio = law.alpha * law.A / (law.beta * law.B)
    G = ratio ** (1 / (law.alpha + law.beta))
    found: Floats = G * (G * unique) ** (law.beta / law.alpha)
    return found


def effective_parameters(points: SizedPoints, law: SizeLaw, size: float) -> Floats:
    """Return N' of eq. 6, which has the form of eq. 5."""
    usable = np.minimum(points.parameters, usable_parameters(law, points.unique))
    return effective_tokens(points.parameters, usable, size)


def law_at(points: SizedPoints, law: SizeLaw, data: float, size: float) -> Floats:
    """Return bits per byte of all points under constants R_D* and R_N*, float64[n]."""
    tokens = effective_tokens(points.tokens, points.unique, data)
    parameters = effective_parameters(points, law, size)
    fall: Floats = law.A * parameters**-law.alpha + law.B * tokens**-law.beta
    return law.E + fall - law.gain * points.decayed


def start_law(points: SizedPoints, alpha: float, beta: float) -> SizeLaw | None:
    """Return the law with N' = N and these exponents that fits points read once; A, B > 0."""
    once = points.tokens <= points.unique
    N, D, _, bpb, decayed = (column[once] for column in points)
    largest, most = N.max(), D.max()
    columns = np.stack(
        [np.ones_like(N), (N / largest) ** -alpha, (D / most) ** -beta, -decayed], axis=1
    )
    E, A, B, gain = np.linalg.lstsq(columns, bpb, rcond=None)[0].tolist()
    if A <= 0 or B <= 0:
        return None
    return SizeLaw(max(E, 0.0), A * largest**alpha, alpha, B * most**beta, beta, gain)


def fit_seed(points: SizedPoints) -> SizeFit | None:
    """Fit all unknowns to one seed; None where bits do not fall with size and data."""
    low = np.log([1e-6, EXPONENTS[0], 1e-6, EXPONENTS[0], CONSTANTS[0], CONSTANTS[0]])
    high = np.log([1e12, EXPONENTS[1], 1e12, EXPONENTS[1], CONSTANTS[1], CONSTANTS[1]])
    bounds = np.r_[0.0, -np.inf, low], np.r_[np.inf, np.inf, high]

    def unpack(values: Floats) -> SizeFit:
        A, alpha, B, beta, data, size = np.exp(values[2:]).tolist()
        return SizeFit(SizeLaw(float(values[0]), A, alpha, B, beta, float(values[1])), data, size)

    def residuals(values: Floats) -> Floats:
        fit = unpack(values)
        rest: Floats = law_at(points, *fit) - points.bpb
        return rest

    best: tuple[float, SizeFit] | None = None
    for exponent, data, size in itertools.product((0.25, 0.5), (2.0, 15.0), (1.0, 5.0)):
        law = start_law(points, exponent, exponent)
        if law is None:
            continue
        logs = np.log([law.A, law.alpha, law.B, law.beta, data, size])
        start = np.clip(np.r_[law.E, law.gain, logs], *bounds)
        found = optimize.least_squares(residuals, start, bounds=bounds, x_scale="jac", max_nfev=200)
        if best is None or found.cost < best[0]:
            best = float(found.cost), unpack(found.x)
    return None if best is None else best[1]


def fit_sizes(seeds: list[SizedPoints], arms: list[str], level: float = 0.05) -> RepeatFit:
    """Fit both constants seed by seed (see `RepeatFit`); what is not determined is None."""
    fits = [fit_seed(points) for points in seeds]
    known = [(points, fit) for points, fit in zip(seeds, fits, strict=True) if fit is not None]
    if len(known) < len(seeds) or len(seeds) < 2:
        why = (
            f"{len(seeds) - len(known)} of {len(seeds)} seeds' runs do not fall with size and data"
        )
        return RepeatFit(
            r_d_star=None, r_d_interval=None, r_n_star=None, r_n_interval=None, arms=arms,
            error=None, reason=why,
        )  # fmt: skip
    data, data_interval = _over_seeds([fit.data for _, fit in known], level)
    excess = all(
        (points.parameters > usable_parameters(fit.law, points.unique)).any()
        for points, fit in known
    )
    size, size_interval = None, None
    if excess:
        size, size_interval = _over_seeds([fit.size for _, fit in known], level)
    reasons = []
    if data is None:
        reasons.append("R_D* is at an end of what was tried")
    if not excess:
        reasons.append("no model has more parameters than its unique tokens can use")
    elif size is None:
        reasons.append("R_N* is at an end of what was tried")
    return RepeatFit(
        r_d_star=data,
        r_d_interval=data_interval,
        r_n_star=size,
        r_n_interval=size_interval,
        arms=arms,
        error=float(np.mean([_error(points, fit) for points, fit in known])),
        reason="; ".join(reasons),
    )


def _error(points: SizedPoints, fit: SizeFit) -> float:
    return float(np.sqrt(np.mean((law_at(points, *fit) - points.bpb) ** 2)))


def _over_seeds(
    values: list[float], level: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the geometric mean and its t interval, None where a value is at an end."""
    if not all(1.1 * CONSTANTS[0] < value < CONSTANTS[1] / 1.1 for value in values):
        return None, None
    logs = np.log(values)
    low, high = t_interval(logs, level)
    return float(np.exp(logs.mean())), (float(np.exp(low)), float(np.exp(high)))


def fit_studies(records: list[StudyRecord]) -> RepeatFit:
    """Fit the law to the repeat arms of studies of several model sizes, from their records.

    Arms that did not pass the gate of their study are left out, and named.

    Raises:
        TrainingError: fewer than three sizes, no repeat arm, a study that is INCONCLUSIVE or whose
            repeated arm is, or studies of different data, validation, repeated arms or seeds.
    """
    sizes = sorted({record.parameters for record in records})
    if len(sizes) < MIN_SIZES:
        raise TrainingError(
            f"the studies have {len(sizes)} model sizes ({', '.join(f'{n:,}' for n in sizes)}"
            f" parameters), and E, A and α need at least {MIN_SIZES}"
        )
    if not all(record.study.repeats for record in records):
        raise TrainingError("a study has no repeat arm: give each [study] repeats = [2, 4, 8]")
    for what, values in (
        ("dataset", {record.dataset_id for record in records}),
        ("validation", {_valid_words(record) for record in records}),
        ("the arm that is repeated", {_pool_words(record) for record in records}),
        ("seeds", {str(record.study.seeds) for record in records}),
    ):
        if len(values) > 1:
            raise TrainingError(
                f"the studies differ in {what}: {'; '.join(sorted(values))}; one law is fitted to"
                " all, so run them again with the same"
            )
    for record in records:
        _check_gate(record)
    left_out = [
        f"{name} of {record.parameters:,} parameters"
        for record in records
        for name in _repeat_arms(record)
        if not record.arms[name].beats_baselines
    ]
    used = dict.fromkeys(
        name
        for record in records
        for name in _repeat_arms(record)
        if record.arms[name].beats_baselines
    )
    if not used:
        raise TrainingError(
            f"no repeat arm of the studies passed the gate ({', '.join(left_out)}): raise"
            " train.tokens, or repeat less often"
        )
    first = records[0].study
    found = fit_sizes(
        [_seed_points(records, place) for place in range(len(first.seeds))],
        [_pool(records[0]), *used],
        first.level,
    )
    return msgspec.structs.replace(found, left_out=left_out)


def _pool(record: StudyRecord) -> str:
    return record.study.repeat_of or record.control


def _repeat_arms(record: StudyRecord) -> list[str]:
    return [f"repeat-{times}" for times in record.study.repeats]


def _valid_words(record: StudyRecord) -> str:
    valid = record.valid
    return f"{valid.documents} documents, {valid.bytes} bytes: {valid.select}"


def _pool_words(record: StudyRecord) -> str:
    return f"{_pool(record)} = {record.arms[_pool(record)].select}"


def _check_gate(record: StudyRecord) -> None:
    """Refuse a study whose models are too little trained to say how much a token is worth."""
    which = f"the study of {record.parameters:,} parameters"
    if not record.gate_passed:
        raise TrainingError(f"{which} is INCONCLUSIVE: {record.gate}; or leave it out")
    if not record.arms[_pool(record)].beats_baselines:
        raise TrainingError(
            f"{which}: its repeated arm {_pool(record)} did not pass the gate: {record.gate}; or"
            " leave it out"
        )


def _seed_points(records: list[StudyRecord], place: int) -> SizedPoints:
    rows = []
    for record in records:
        config = record.train
        constant = 1 - config.decay if config.schedule == "wsd" else 0.0
        for name in (_pool(record), *_repeat_arms(record)):
            arm = record.arms[name]
            if not arm.beats_baselines:
                continue
            curve = arm.seeds[place].curve
            for point in curve:
                last = point is curve[-1]
                if last or point.tokens <= constant * record.tokens:
                    rows.append(
                        (record.parameters, point.tokens, arm.available_tokens, point.valid_bpb,
                         float(last and config.decay > 0))
                    )  # fmt: skip
    return SizedPoints(*np.array(rows, np.float64).T)
