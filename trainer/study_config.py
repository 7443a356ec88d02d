"""The `[study]` table of a recipe (light: imports no torch): arms, controls, level, prediction."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shards.config import did_you_mean
from shards.errors import RecipeError

LONGEST_NAME = 200
"""Bytes of an arm's name: file systems take 255 for a folder, which has the seed in it as well."""

Positive = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=0, lt=2**31)]


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents of arm `of` (default: the control) between two quantiles of `signal`.

    `signal` is a column or arithmetic over columns (`zstd_bpb`: intrinsic, `ref_bpb`: conditional,
    `junk_score`: combined, `ref_bpb - zstd_bpb`: yours). `low` and `high` are shares of the arm's
    tokens below the band's ends, so the recipe needs no threshold that only the data could tell.
    Documents without a value are in no band.
    """

    signal: str
    low: Share = 0.0
    high: Share = 1.0
    of: str | None = None


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents of arm `of` (default: the control), with these shares of the tokens by cell.

    `weights` has a number, on any scale, for each cell (see `Cells`) or whole source wanted. It
    holds as many tokens as the scarcest cell allows; where that is less than a run trains on, what
    is scarce is in it repeatedly.
    """

    weights: dict[str, Annotated[float, Meta(ge=0)]]
    of: str | None = None


class Curriculum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents of arm `of` (default: the control) in the order of `signal`, lowest first.

    `stages` parts of an epoch follow each other; inside a part the order is the seed's. Its twin,
    the arm `shuffled-NAME`, reads the same documents in the seed's order alone.
    """

    signal: str
    of: str | None = None
    descending: bool = False
    stages: Annotated[int, Meta(ge=2)] = 10


class Cells(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How documents are told apart for mixtures and worth: by source, and by bins of a signal.

    With `signal`, each of `bins` holds an equal share of the control's tokens; cell `docs/2` is the
    second lowest bin of the source `docs`. Without, a cell is a source.
    """

    signal: str | None = None
    bins: Annotated[int, Meta(ge=2, le=100)] = 10


class Probes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arms `probe-01`…: mixtures of arm `of` (default: the control) with weights drawn at random.

    From a Dirichlet law around the shares that the arm has (as RegMix: Liu et al. 2024, §3.1),
    whose parameters sum to `concentration`: the smaller, the more extreme the mixtures.
    """

    count: Annotated[int, Meta(ge=1, le=512)]
    of: str | None = None
    concentration: Rate = 8.0
    seed: Seed = 1


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings tried on the control arm alone before any other run; all arms then use the best.

    Every pair of `learning_rates` and `weight_decays` (an empty list: the value of `[train]`) is a
    run for each of `seeds`, which are none of the study's own. `embedding_learning_rate` keeps its
    ratio to `learning_rate`.
    """

    learning_rates: list[Rate] = []
    weight_decays: list[Annotated[float, Meta(ge=0)]] = []
    seeds: Annotated[list[Seed], Meta(min_length=1)] = msgspec.field(default_factory=lambda: [1001])


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an earlier study foretold of one arm of this one (`assay study suggest` writes it).

    `delta` (arm − control, bits per byte) and its prediction interval `low` to `high`, of coverage
    1 − `level`; `seeds` are those of the earlier study, none of which may be used again. `tokens`
    is what its runs trained on: a prediction says nothing of other budgets. `made_for` has hashes
    of the model and settings, validation, control and arm that it is about
    (`trainer/study_told.py`).
    """

    arm: str
    delta: float
    low: float
    high: float
    seeds: list[Seed]
    dataset_id: str
    tokens: Positive | None = None
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    made_for: dict[str, str] = {}


class StudyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The comparison of arms.

    `arms` maps a name to the selection of documents that the arm trains on; every other arm is
    compared with `control`. `valid` selects the validation documents, which no arm may touch; of
    these, documents that share more than `max_overlap` of their 13-grams of tokens with what any
    arm may read are taken out before the first run (1: none are). `apart_from` are selections that
    count there like an arm's: `assay study suggest` names what the first study's arms read, so that
    the next one is tested on the same documents.
    Each of `seeds` fixes the initial weights, the order law and the draws of one run of every arm.

    More arms follow from these, without a selection of their own (see `trainer/study_arms.py`):

    - `bands`, `mixtures`, `curricula`: by name, see their types. `probes`: mixtures at random.
    - `random_like`: for each name, `random-NAME`: documents of the control drawn by hash, with as
      many tokens as NAME has. What beats the control but not its random subset is only smaller.
      NAME is a selection, band, mixture or probe. Left out, it is the one of them that holds the
      fewest tokens, if fewer than the control (`study_arms.with_random`); an empty list is none, on
      purpose.
    - `repeats`: for each R, `repeat-R`: documents of `repeat_of` (default: the control) with a
      share 1/R of the budget's tokens, so that the run reads each R times.

    All runs train on `train.tokens`, so with equal FLOPs. With `budget = "unique"` every arm is
    also cut, by hash, to the same number of tokens: `unique_tokens`, or what the smallest arm has.

    `contrasts` are pairs of arms that are compared with each other too, planned beforehand: a
    second look at what came out best is none.

    `level` is the chance of calling any difference where there is none, over all arms together
    (and, apart from that, over all contrasts).
    `expected_seed_sd` and `expected_document_sd` (bits per byte) are what the power calculation
    before the first run goes by; the defaults are those of the demo's study.
    """

    arms: dict[str, str] = msgspec.field(
        default_factory=lambda: {
            "raw": "split == 'train'",
            "curated": "split == 'train' and dropped == ''",
        }
    )
    control: str = "raw"
    bands: dict[str, Band] = {}
    mixtures: dict[str, Mix] = {}
    curricula: dict[str, Curriculum] = {}
    cells: Cells = Cells()
    probes: Probes | None = None
    random_like: list[str] | None = None
    repeats: list[Annotated[int, Meta(ge=2)]] = []
    repeat_of: str | None = None
    budget: Literal["flops", "unique"] = "flops"
    unique_tokens: Positive | None = None
    contrasts: list[tuple[str, str]] = []
    valid: str = "split == 'valid' and dropped == ''"
    max_overlap: Share = 0.7
    apart_from: list[str] = []
    sweep: Sweep | None = None
    prediction: Prediction | None = None
    seeds: Annotated[list[Seed], Meta(min_length=2)] = msgspec.field(
        default_factory=lambda: [1, 2, 3]
    )
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    bootstrap_samples: Annotated[int, Meta(ge=100)] = 2_000
    expected_seed_sd: Rate = 0.007
    expected_document_sd: Rate = 0.04

    @property
    def random_subsets(self) -> list[str]:
        """The arms with a random subset beside them; none where the data has yet to decide."""
        return self.random_like or []

    @property
    def arm_names(self) -> list[str]:
        """All arms, those that follow from others included, in the order of the runs."""
        return [
            *self.arms,
            *self.bands,
            *self.mixtures,
            *(name for key in self.curricula for name in (key, f"shuffled-{key}")),
            *(f"random-{name}" for name in self.random_subsets),
            *(f"repeat-{times}" for times in self.repeats),
            *self.probe_names,
        ]

    @property
    def probe_names(self) -> list[str]:
        """The probes' arms."""
        count = self.probes.count if self.probes else 0
        return [f"probe-{number:02}" for number in range(1, count + 1)]

    @property
    def sized_arms(self) -> list[str]:
        """The arms that can have a random subset of equal size: see `random_like`."""
        return [*self.arms, *self.bands, *self.mixtures, *self.probe_names]

    @property
    def named_expressions(self) -> dict[str, str]:
        """All selections and signals by their key, as far as the recipe writes them."""
        cells = {} if self.cells.signal is None else {"study.cells.signal": self.cells.signal}
        return {
            **{f"study.arms.{name}": select for name, select in self.arms.items()},
            "study.valid": self.valid,
            **{f"study.apart_from[{i}]": select for i, select in enumerate(self.apart_from)},
            **{f"study.bands.{name}.signal": band.signal for name, band in self.bands.items()},
            **{f"study.curricula.{name}.signal": c.signal for name, c in self.curricula.items()},
            **cells,
        }

    @property
    def expressions(self) -> list[str]:
        """All selections and signals, as far as the recipe writes them."""
        return list(self.named_expressions.values())

    def __post_init__(self) -> None:
        """Check names, seeds and budgets against each other.

        Raises:
            RecipeError: with the key and its value.
        """
        if not self.arms:
            raise RecipeError(
                "study.arms is empty: name a selection for the control at least, such as"
                f""" {self.control} = "split == 'train'" """.rstrip()
            )
        self._check_names()
        if (repeated := _repeated(self.seeds)) is not None:
            raise RecipeError(f"study.seeds = {self.seeds}: {repeated} repeats; seeds must differ")
        for key, seeds in (
            ("sweep", self.sweep.seeds if self.sweep else []),
            ("prediction", self.prediction.seeds if self.prediction else []),
        ):
            if shared := sorted(set(seeds) & set(self.seeds)):
                why = (
                    "the settings would be chosen by the runs that they are judged by"
                    if key == "sweep"
                    else "a prediction must be tested on seeds that it has not seen"
                )
                raise RecipeError(
                    f"study.{key}.seeds = {seeds} share {shared} with study.seeds: {why}"
                )
        for name, band in self.bands.items():
            if band.low >= band.high:
                raise RecipeError(
                    f"study.bands.{name}: low = {band.low} is not below high = {band.high}"
                )
        self._check_finite()
        self._check_sweep()
        self._check_prediction()
        self._check_budget()

    def _check_names(self) -> None:
        checks: list[tuple[str, str | None, Iterable[str]]] = [
            ("control", self.control, self.arms),
            ("repeat_of", self.repeat_of, self.arms),
            *((f"bands.{name}.of", band.of, self.arms) for name, band in self.bands.items()),
            *((f"mixtures.{name}.of", mix.of, self.arms) for name, mix in self.mixtures.items()),
            *((f"curricula.{name}.of", c.of, self.arms) for name, c in self.curricula.items()),
            ("probes.of", self.probes.of if self.probes else None, self.arms),
            *([("prediction.arm", self.prediction.arm, self.arm_names)] if self.prediction else []),
        ]
        for key, value, known in checks:
            if value is not None and value not in known:
                raise RecipeError(
                    f"study.{key} = {value!r}: not one of study.arms"
                    f"{did_you_mean(value, tuple(known), 'arms')}"
                )
        self._check_random()
        self._check_contrasts()
        names = self.arm_names
        if len(names) < 2:
            raise RecipeError(f"study: {names} is one arm, and a study compares at least two")
        if repeated := _repeated(names):
            raise RecipeError(f"study: two arms are named {repeated!r}; rename or remove one")
        for name in names:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise RecipeError(
                    f"study.arms: {name!r}: a name of letters, digits, '_' and '-', since it names"
                    " a folder"
                )
            if len(name.encode()) > LONGEST_NAME:
                raise RecipeError(
                    f"study.arms: {name[:20]!r}…: a name of {len(name.encode())} bytes, which names"
                    f" a folder: at most {LONGEST_NAME}"
                )

    def _check_random(self) -> None:
        """Refuse names in `random_like` of which a random subset says nothing."""
        for name in self.random_subsets:
            key = f"study.random_like = {name!r}"
            if name == self.control:
                raise RecipeError(
                    f"{key}: is the control, of which a random subset of equal size is itself"
                )
            if name in self.curricula:
                raise RecipeError(
                    f"{key}: is a curriculum, whose control is its twin shuffled-{name}, the same"
                    " documents in another order; leave it out"
                )
            if name not in self.sized_arms:
                known = did_you_mean(name, tuple(self.sized_arms), "arms")
                raise RecipeError(f"{key}: no selection, band, mixture or probe{known}")

    def _check_contrasts(self) -> None:
        seen: set[frozenset[str]] = set()
        for pair in self.contrasts:
            key = f"study.contrasts: {list(pair)}"
            for name in pair:
                if name not in self.arm_names:
                    known = did_you_mean(name, tuple(self.arm_names), "arms")
                    raise RecipeError(f"{key}: {name!r} is no arm of the study{known}")
            if len(set(pair)) < 2 or frozenset(pair) in seen:
                raise RecipeError(f"{key}: name two different arms, each pair once")
            if self.control in pair:
                raise RecipeError(
                    f"{key}: every arm is compared with the control {self.control!r} anyway; leave"
                    " the pair out"
                )
            seen.add(frozenset(pair))

    def _check_finite(self) -> None:
        """Refuse inf and nan, which TOML can write, where the types let them pass."""
        numbers: list[tuple[str, float]] = [
            ("expected_seed_sd", self.expected_seed_sd),
            ("expected_document_sd", self.expected_document_sd),
        ]
        for name, mix in self.mixtures.items():
            numbers += [(f"mixtures.{name}.weights.{c}", w) for c, w in mix.weights.items()]
        if self.probes:
            numbers.append(("probes.concentration", self.probes.concentration))
        if self.sweep:
            numbers += [("sweep.learning_rates", rate) for rate in self.sweep.learning_rates]
            numbers += [("sweep.weight_decays", decay) for decay in self.sweep.weight_decays]
        if told := self.prediction:
            numbers += [
                (f"prediction.{key}", getattr(told, key)) for key in ("delta", "low", "high")
            ]
        for key, value in numbers:
            if not math.isfinite(value):
                raise RecipeError(f"study.{key} = {value}: must be a finite number")

    def _check_sweep(self) -> None:
        if self.sweep is None:
            return
        for key in ("learning_rates", "weight_decays", "seeds"):
            values = getattr(self.sweep, key)
            if (repeated := _repeated(values)) is not None:
                raise RecipeError(
                    f"study.sweep.{key} = {values}: {repeated} repeats; name each value once"
                )
        if not self.sweep.learning_rates and not self.sweep.weight_decays:
            raise RecipeError(
                "study.sweep: neither learning_rates nor weight_decays has a value, so there is"
                " nothing to try; list some or remove the table"
            )

    def _check_prediction(self) -> None:
        told = self.prediction
        if told is None:
            return
        if told.arm == self.control:
            raise RecipeError(
                f"study.prediction.arm = {told.arm!r}: is the control, which has no difference from"
                " itself to foretell"
            )
        if told.low > told.high:
            raise RecipeError(f"study.prediction: low = {told.low} is above high = {told.high}")

    def _check_budget(self) -> None:
        if self.budget == "unique" and self.random_like:
            raise RecipeError(
                f"study.random_like = {self.random_like} with study.budget = 'unique': the control"
                " is itself cut to as many tokens by the same hash, so that a random subset would"
                " be the control again; leave random_like out, or use budget = 'flops'"
            )
        if self.budget == "unique" and (self.repeats or self.mixtures or self.probes):
            key = "repeats" if self.repeats else "mixtures" if self.mixtures else "probes"
            raise RecipeError(
                f"study.{key} with study.budget = 'unique': such an arm reads documents repeatedly"
                " by definition; use budget = 'flops'"
            )
        if self.budget == "flops" and self.unique_tokens is not None:
            raise RecipeError(
                f"study.unique_tokens = {self.unique_tokens}: only with study.budget = 'unique'"
            )


def _repeated(items: list[Any]) -> Any:
    """Return the first item that occurs twice, None where there is none."""
    return next((item for place, item in enumerate(items) if item in items[:place]), None)
