"""What the trainer left on disk, as far as the report shows it.

`trainer` and `pipelines` do not import each other (spine.md), so the fields that the report needs
are named here again; fields that it does not know are skipped. `trainer/records.py` says what each
one means.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shards.errors import CorruptError

S = TypeVar("S", bound=msgspec.Struct)


class CurvePoint(msgspec.Struct, frozen=True):
    """Validation bits per byte after `tokens` trained tokens."""

    tokens: int
    valid_bpb: float


class Baselines(msgspec.Struct, frozen=True):
    """Bits per byte of token models on the validation documents."""

    unigram: float
    bigram: float


class SeedResult(msgspec.Struct, frozen=True):
    """One run of an arm."""

    seed: int
    bpb: float
    curve: list[CurvePoint]
    tokens_per_s: float = 0.0


class SourceResult(msgspec.Struct, frozen=True, kw_only=True):
    """Arm − control on one source's validation documents."""

    documents: int
    delta: float
    interval: tuple[float, float] | None = None


class Prequential(msgspec.Struct, frozen=True, kw_only=True):
    """Code length of an arm's own text; compared with `against`, which reads the same bytes."""

    bpb: float
    read: float
    against: str | None = None
    delta: float | None = None
    interval: tuple[float, float] | None = None


class CellWorth(msgspec.Struct, frozen=True, kw_only=True):
    """What more of a cell does to the validation's bits per byte, for a unit of share."""

    cell: str
    bytes: int
    effect: float
    interval: tuple[float, float]


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """The regression of worth on shares."""

    arms: list[str]
    cells: list[CellWorth]
    left_out_error: float
    plain_error: float
    left_out_rank: float | None = None


class SignalRank(msgspec.Struct, frozen=True, kw_only=True):
    """Rank correlation of a signal's mean with worth, over arms."""

    signal: str
    rho: float
    p_value: float


class RepeatFit(msgspec.Struct, frozen=True, kw_only=True):
    """The decay constant of repeated data."""

    r_d_star: float | None
    r_d_interval: tuple[float, float] | None
    arms: list[str]
    reason: str
    left_out: list[str] = []


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The control arm under one pair of settings."""

    learning_rate: float
    weight_decay: float
    bpb: float


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """Settings tried on the control arm alone."""

    points: list[SweepPoint]
    chosen: int
    at_edge: list[str]


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the validation is in training data, and what was taken out for it."""

    ngram: int
    limit: float
    documents: int
    removed: int
    highest: float
    arms: dict[str, float]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier study foretold, and what was measured."""

    arm: str
    predicted: float
    low: float
    high: float
    measured: float
    interval: tuple[float, float]
    same_dataset: bool
    held: bool | None
    same_tokens: bool = True
    other: list[str] = []

    @property
    def made_for(self) -> str:
        """What is another than the prediction was made for."""
        flags = (("dataset", self.same_dataset), ("budget", self.same_tokens))
        found = [what for what, same in flags if not same] + self.other
        return f" (made for another {', '.join(found)}: no test of it)" if found else ""

    @property
    def weak(self) -> str:
        """What weakens a prediction that held: it forbade little, or its middle was not met."""
        low, high = self.interval
        found = ["its interval includes no difference"] if self.low <= 0 <= self.high else []
        if not low <= self.predicted <= high:
            found.append("the foretold value lies outside of the measured interval")
        return f", but {' and '.join(found)}" if self.held and found else ""


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """Two arms compared with each other: `arm` − `against`."""

    arm: str
    against: str
    delta: float
    ci_low: float
    ci_high: float
    level: float
    p_value: float
    verdict: str


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """One arm; `delta` and intervals are arm − control, None for the control."""

    select: str
    documents: int
    available_tokens: int
    tokens: int
    epochs: float
    bpb: float
    by_source: dict[str, float]
    baselines: Baselines
    seeds: list[SeedResult]
    baselines_all: Baselines | None = None
    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    seed_ci: tuple[float, float] | None = None
    document_ci: tuple[float, float] | None = None
    level: float | None = None
    p_value: float | None = None
    effective_data_multiplier: float | None = None
    multiplier_ci: tuple[float | None, float | None] | None = None
    multiplier_reach: float | None = None
    multiplier_beyond: str | None = None
    verdict: str = "control"
    tokens_to_target: float | None = None
    area: float | None = None
    draw: str = "all"
    random_delta: float | None = None
    random_ci: tuple[float, float] | None = None
    sources: dict[str, SourceResult] = {}
    ladder: dict[str, float] = {}
    prequential: Prequential | None = None

    @property
    def data_worth(self) -> str:
        """The effective-data multiplier; beyond the reach of the curves as < or > that."""
        if self.effective_data_multiplier is not None:
            return f"×{self.effective_data_multiplier:.2f}"
        if self.multiplier_reach is None or self.multiplier_beyond is None:
            return "unknown"
        below = self.multiplier_beyond == "<"
        reach = 1 / self.multiplier_reach if below else self.multiplier_reach
        return f"{self.multiplier_beyond} ×{reach:.2f}"

    @property
    def data_worth_interval(self) -> str:
        """The interval of `data_worth`; empty where there is none."""
        if self.multiplier_ci is None or self.data_worth == "unknown":
            return ""
        low, high = self.multiplier_ci
        if self.multiplier_reach is None and low is None and high is None:
            return "no interval"
        least, most = "unknown", "unknown"
        if self.multiplier_reach is not None:
            least, most = f"< {1 / self.multiplier_reach:.2f}", f"> {self.multiplier_reach:.2f}"
        first = least if low is None else f"{low:.2f}"
        last = most if high is None else f"{high:.2f}"
        return f"{first} to {last}"


class Valid(msgspec.Struct, frozen=True):
    """The validation documents."""

    select: str
    documents: int
    bytes: int
    curve_documents: int = 0
    zstd_bpb: float | None = None
    overlap: Overlap | None = None


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """`study.json`. `study` and `train` are the recipe's tables."""

    dataset_id: str
    study: dict[str, Any]
    train: dict[str, Any]
    parameters: int
    flops: int
    tokens: int
    valid: Valid
    arms: dict[str, ArmResult]
    control: str
    gate_passed: bool
    gate: str
    sentence: str
    detectable_difference: float | None = None
    sweep: Sweep | None = None
    repeats: RepeatFit | None = None
    signals: list[SignalRank] = []
    worth: Worth | None = None
    prediction: Prediction | None = None
    contrasts: list[Contrast] = []

    @property
    def ladder_rungs(self) -> list[str]:
        """The rungs of the arms' own ladders, in order."""
        return list(dict.fromkeys(key for arm in self.arms.values() for key in arm.ladder))

    @property
    def random_subsets(self) -> str:
        """What each arm differs by from its random subset, and which smaller arms have none."""
        base, told = self.arms[self.control], []
        for name, arm in self.arms.items():
            if arm.random_delta is not None and arm.random_ci is not None:
                low, high = (f"{end:+.4f}" for end in arm.random_ci)
                other = self.arms.get(f"random-{name}", arm)
                lost = "INCONCLUSIVE" in (arm.verdict, other.verdict)
                text = f"{name} − random-{name}: {arm.random_delta:+.4f} ({low} to {high})"
                told.append(f"{text}, INCONCLUSIVE" if lost else text)
        chosen = {
            name for key in ("arms", "bands", "mixtures") for name in self.study.get(key) or {}
        }
        missing = [
            name
            for name, arm in self.arms.items()
            if (name in chosen or name.startswith("probe-"))
            and arm.random_delta is None
            and arm.available_tokens < base.available_tokens
        ]
        if self.study.get("budget") != "unique":
            told += self._lacking(missing, chosen)
        none = "none is needed: no selection, band or mixture is smaller than the control"
        return "; ".join(told).replace("-0.", "−0.") or none

    def _lacking(self, missing: list[str], chosen: set[str]) -> list[str]:
        """Say of arms without a random subset whether one that is no larger speaks for them.

        As `trainer.study_controls.lacking`: to within 1 %, and only if it passed the gate.
        """
        sizes = {name: arm.available_tokens for name, arm in self.arms.items()}
        subsets = [
            name
            for name, arm in self.arms.items()
            if name.startswith("random-") and name not in chosen and arm.verdict != "INCONCLUSIVE"
        ]
        smallest = min(subsets, key=sizes.__getitem__, default=None)
        covered = [name for name in missing if smallest and 1.01 * sizes[name] >= sizes[smallest]]
        rest = [name for name in missing if name not in covered]
        said = []
        if covered:
            end = f"{smallest}, no larger, shows what less data alone does"
            said.append(f"none for {', '.join(covered)}: {end}")
        if rest:
            said.append(f"none for {', '.join(rest)}: less data alone might explain them")
        return said

    @property
    def level(self) -> float:
        """1 − coverage of the study's intervals."""
        return float(self.study.get("level", 0.05))

    @property
    def seconds(self) -> float:
        """Time spent in training steps, over all runs."""
        return sum(
            arm.tokens / seed.tokens_per_s
            for arm in self.arms.values()
            for seed in arm.seeds
            if seed.tokens_per_s
        )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json`: a single training, which compares nothing."""

    dataset_id: str
    select: str
    seed: int
    config: dict[str, Any]
    parameters: int
    tokens: int
    epochs: float
    bpb: float
    curve: list[CurvePoint]
    baselines: Baselines
    facts: dict[str, Any] = {}


def read_study(runs: Path) -> Study | None:
    """Return the study in the folder `runs`, None where there is none.

    Raises:
        CorruptError: the file is not a study's record.
    """
    return _read(runs / "study.json", Study)


def read_run(runs: Path) -> Run | None:
    """Return the single run of a chain without a study: `train/run.json` or `run.json`.

    Raises:
        CorruptError: the file is not a run's record.
    """
    return _read(runs / "train" / "run.json", Run) or _read(runs / "run.json", Run)


def _read(path: Path, type_: type[S]) -> S | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{path}: not a {type_.__name__.lower()} record: {error}; make it again with"
            f" `assay {'study' if type_ is Study else 'train'}`"
        ) from None
