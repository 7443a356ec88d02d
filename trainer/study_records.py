"""Parts of `study.json` beyond an arm's own numbers (light: imports no torch). Units: bits a byte.

Intervals of worth and repetition, and rank correlations, are exploratory: none is a verdict.
"""

import msgspec

Bounds = tuple[float, float]

BEFORE = "before-"
"""Begins the names under which the record of a replaced study is kept."""


class SourceResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arm − control on the validation documents of one source.

    The level is shared: the chance that any interval of an arm's sources and of all arms leaves out
    zero where there is no difference is at most the study's level (Holm over arms, Bonferroni over
    sources). No interval where a source has fewer than two documents.
    """

    documents: int
    delta: float
    interval: Bounds | None = None


class ContrastResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A planned comparison of two arms besides the control: `arm` − `against`.

    Fields as those of an arm (`trainer.records.ArmResult`); Holm's procedure is over all contrasts.
    """

    arm: str
    against: str
    delta: float
    ci_low: float
    ci_high: float
    seed_ci: Bounds
    document_ci: Bounds
    level: float
    p_value: float
    verdict: str


class Prequential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Code length of the training data itself: each batch is coded before it is learned from.

    Σ loss over the first reading of each sample, in bits a byte, mean over seeds (the prequential
    code of Dawid 1984; Blier & Ollivier 2018, §3.3). `read` is the share of the arm's bytes that it
    covers. Two arms have comparable code lengths only on identical bytes: `delta` and `interval`
    are against the arm `against`, which reads the same documents whole in every seed, if one does.
    """

    bpb: float
    read: float
    against: str | None = None
    delta: float | None = None
    interval: Bounds | None = None


class RepeatFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast data loses its worth when it is read again (see `trainer/study_repeats.py`).

    `r_d_star`, `r_n_star`: the decay constants of Muennighoff et al. 2023, eqs. 5 and 6, each with
    the t interval over seeds of its logarithm; None where the runs do not determine it, `reason`
    then says why. `error` is the root mean square residual. `left_out` are arms that it was not
    fitted to, since they did not pass the gate.
    """

    r_d_star: float | None
    r_d_interval: Bounds | None
    r_n_star: float | None
    r_n_interval: Bounds | None
    arms: list[str]
    error: float | None
    reason: str
    left_out: list[str] = []


class SignalRank(msgspec.Struct, frozen=True, kw_only=True):
    """Spearman's ρ over arms between a signal's mean (by bytes) and worth (control − arm).

    `p_value` by permuting arms, corrected for the number of signals by Holm's procedure. There is
    no interval (older records have one, which is skipped): noise added to measured worth, which
    has its own already, pulls ρ towards zero, and what it spans misses the true one.
    """

    signal: str
    rho: float
    p_value: float


class CellWorth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tokens and bytes of a cell in the control, and what more of it does.

    `effect` is the change in validation bits per byte for each unit of share that the cell gains
    and the rest loses in proportion, with its 95 % interval.
    """

    cell: str
    tokens: int
    bytes: int
    effect: float
    interval: Bounds


class WorthModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Regression of measured worth on the arms' shares of each cell (`trainer/study_worth.py`).

    `weights` belong to the centred model that predicts; `covariance` is theirs, `noise` the
    variance of one run around its expectation, `misfit` the variance that shares do not explain.
    `left_out_rank` is Spearman's ρ, and `left_out_error` the root mean square error, of
    differences predicted for each arm by the others, without arms of the same shares (to within
    1 % of the bytes); `plain_error` that of predicting zero.
    """

    arms: list[str]
    cells: list[CellWorth]
    weights: list[float]
    covariance: list[list[float]]
    noise: float
    misfit: float
    left_out_rank: float | None
    left_out_error: float
    plain_error: float


class SweepPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The control arm under one pair of settings: mean over the sweep's seeds."""

    learning_rate: float
    embedding_learning_rate: float
    weight_decay: float
    bpb: float
    runs: list[str]


class SweepResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All points, which was chosen, and keys whose best value lies at an end of its list."""

    points: list[SweepPoint]
    chosen: int
    at_edge: list[str]


class OverlapResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence that the validation is not in the training data (`trainer/study_overlap.py`).

    Of `documents` that `study.valid` selects, `removed` had more than `limit` of their `ngram`s of
    tokens in what some arm may read; `short` ones have no such n-gram and stay. `highest` is the
    largest share of a document that stayed; `arms` the share of all their n-grams that each
    selection holds.
    """

    ngram: int
    limit: float
    documents: int
    removed: int
    short: int
    highest: float
    arms: dict[str, float]


class PredictionResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an earlier study foretold, what was measured on fresh seeds, and whether it held.

    It holds where the measured difference lies in the prediction's interval. `held` is None, not
    tested, where the arm is INCONCLUSIVE: models that fail the gate judge no data. On another
    dataset, or with another budget of tokens a run, it is no test of the prediction as it was made;
    nor where `other` names something that is not what it was made for (`trainer/study_told.py`).
    """

    arm: str
    predicted: float
    low: float
    high: float
    measured: float
    interval: Bounds
    same_dataset: bool
    held: bool | None
    same_tokens: bool = True
    other: list[str] = []
