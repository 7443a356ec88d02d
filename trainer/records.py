"""What runs and studies leave on disk (light: imports no torch).

A run's folder holds `begun.json` (and `documents.npz` where a study drew them), `metrics.jsonl` (a
`Metrics` a step), `valid.npz` (bits and bytes of every validation document), the checkpoint, and
`run.json`, written last. A study's folder holds one run
per arm and seed, and `study.json`, from which a report can be made without anything else.
"""

import hashlib
import io
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from shards.atomic import write_atomic
from shards.errors import CorruptError
from shards.hashing import stable_hash
from trainer.config import TrainConfig
from trainer.study_config import StudyConfig
from trainer.study_records import (
    ContrastResult,
    OverlapResult,
    PredictionResult,
    Prequential,
    RepeatFit,
    SignalRank,
    SourceResult,
    SweepResult,
    WorthModel,
)

RUN = "run.json"
METRICS = "metrics.jsonl"
VALID = "valid.npz"
STUDY = "study.json"
STUDY_TEXT = "study.md"

S = TypeVar("S", bound=msgspec.Struct)


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step: `loss` in nats per token before the update, `tokens` trained on after it.

    `grad_norm` is the norm before clipping; `seconds` leaves out validation; `wait_share` is the
    share of them spent waiting for data; `mfu` the model FLOPs a second over the peak that the
    facts of `run.json` name; `memory_bytes` the most that the first rank has used so far.
    `valid_bpb` stands where validation was due, `valid_by_source` beside it.
    """

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    tokens_per_s: float
    wait_share: float
    valid_bpb: float | None = None
    valid_by_source: dict[str, float] | None = None
    mfu: float | None = None
    memory_bytes: int | None = None


class CurvePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place on a learning curve: mean training loss (nats per token) since the last point."""

    step: int
    tokens: int
    train_loss: float
    valid_bpb: float


class Baselines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bits per byte of token models on the validation documents."""

    unigram: float
    bigram: float


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`run.json`: a finished run.

    `tokens` were trained on (positions: the padding of a selection's last sample counts),
    `unique_tokens` of them for the first time, out of `available_tokens` in the selection; `epochs`
    = tokens / available. `baselines` were fitted to what the run read. `draw` says what of `select`
    it read: "all", or in words what is listed in `documents.npz` (`shards/view_file.py`).
    `facts` holds what may differ between two equal runs: time, speed, versions. `seal` is a hash of
    all the rest, empty in records of an older Assay (`read_run`).
    """

    format: int = 1
    run_key: str
    dataset_id: str
    tokenizer_sha256: str = ""
    select: str
    draw: str = "all"
    selection_hash: str
    valid_hash: str
    seed: int
    config: TrainConfig
    definitions: dict[str, str]
    device: str
    parameters: int
    flops_per_token: int
    steps: int
    tokens: int
    unique_tokens: int
    available_tokens: int
    epochs: float
    bpb: float
    by_source: dict[str, float]
    curve: list[CurvePoint]
    curve_documents: int
    baselines: Baselines
    valid_sha256: str
    checkpoint_sha256: str
    seal: str = ""
    facts: dict[str, Any] = {}

    @property
    def beats_baselines(self) -> bool:
        """Whether the model learned more than its data's token and pair frequencies."""
        return self.bpb < min(self.baselines.unigram, self.baselines.bigram)


class SeedResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of an arm, in its folder `run` beside `study.json`."""

    seed: int
    run: str
    bpb: float
    by_source: dict[str, float]
    baselines: Baselines
    beats_baselines: bool
    unique_tokens: int
    tokens_per_s: float
    curve: list[CurvePoint]
    cpu_seconds: float | None = None


class ArmResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One arm: mean bits per byte over seeds, and its difference from the control.

    `documents` are those that `select` keeps, or a draw from them: `draw` says how much. Draws
    differ from seed to seed, and `documents`, `available_tokens`, `unique_tokens`, `baselines_all`,
    `shares` (of the bytes, by cell) and `ladder` are then means over seeds. A document that an arm
    holds more than once is counted once.

    `ladder` has the bits per byte of the arm's own text under better and better models: "zstd"
    (each document alone), "fixed" (log2 V a token), "unigram" (entropy of its tokens), and
    "prequential" (the model, while it learns).

    `delta` = arm − control (negative: the arm is better); `ci_low`, `ci_high` bound it with
    respect to both seeds and documents, `seed_ci` and `document_ci` each alone. All have coverage
    1 − `level`, with the level at which Holm's procedure tests this arm; `p_value` is corrected
    for all arms. The control has none of these. `baselines` are means over seeds, of models that
    read what the runs read; `baselines_all` of models that read the whole arm, `available_tokens`.

    An arm with a random subset of equal size beside it has its difference from that in
    `random_delta` and `random_ci` (seeds and documents; level shared evenly by all such arms).

    `effective_data_multiplier`: how many tokens of the control one of the arm's is worth, from the
    difference and the curves before the decay (`trainer/study_curves.py`); `multiplier_ci` holds
    the errors of both, and leaves out 1 where `delta`'s interval leaves out 0. The curves tell of
    1 / `multiplier_reach` to `multiplier_reach`: outside of that the multiplier is None and
    `multiplier_beyond` is "<" or ">"; an end that is None has no bound within. From the mean
    curves, which end at the score on all of the validation: `tokens_to_target` until the control's
    last value is reached, and `area`, the mean bits per byte over ln(tokens). None is unknown: a
    curve that tells too little, or would have to be extended too far.
    """

    select: str
    documents: int
    available_tokens: int
    tokens: int
    unique_tokens: int
    epochs: float
    bpb: float
    by_source: dict[str, float]
    baselines: Baselines
    baselines_all: Baselines
    beats_baselines: bool
    seeds: list[SeedResult]
    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    seed_ci: tuple[float, float] | None = None
    document_ci: tuple[float, float] | None = None
    level: float | None = None
    p_value: float | None = None
    verdict: str = "control"
    tokens_to_target: float | None = None
    effective_data_multiplier: float | None = None
    multiplier_ci: tuple[float | None, float | None] | None = None
    multiplier_reach: float | None = None
    multiplier_beyond: Literal["<", ">"] | None = None
    area: float | None = None
    draw: str = "all"
    random_delta: float | None = None
    random_ci: tuple[float, float] | None = None
    sources: dict[str, SourceResult] = {}
    shares: dict[str, float] = {}
    ladder: dict[str, float] = {}
    prequential: Prequential | None = None


class ValidResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The validation documents; `zstd_bpb` from the dataset's signal, each document on its own.

    Scores are over all `documents`; the points of the curves over the first `curve_documents`.
    `overlap` says what was taken out before, and what is left in the training data.
    """

    select: str
    documents: int
    curve_documents: int
    tokens: int
    bytes: int
    zstd_bpb: float | None
    overlap: OverlapResult | None = None


class StudyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`study.json`: every arm trains on the same number of tokens with the same FLOPs.

    `gate_passed`: the control and some other arm beat their baselines in every run; `verdict` is
    then "conclusive", otherwise INCONCLUSIVE. An arm that alone does not is INCONCLUSIVE alone.
    `tokens_needed` are more tokens a run for all to beat them, at least and at most (None:
    unknown), if some run does not. `detectable_difference` (bits per byte) is what the study could
    see with a chance of 80 %, by the standard deviations that its recipe expects. `train` has the
    settings that the `sweep` chose, if there was one.
    """

    format: int = 1
    dataset_id: str
    study: StudyConfig
    train: TrainConfig
    parameters: int
    flops: int
    tokens: int
    valid: ValidResult
    arms: dict[str, ArmResult]
    control: str
    gate_passed: bool
    gate: str
    verdict: str
    sentence: str
    tokens_needed: tuple[float | None, float | None] | None = None
    detectable_difference: float | None = None
    sweep: SweepResult | None = None
    repeats: RepeatFit | None = None
    signals: list[SignalRank] = []
    worth: WorthModel | None = None
    prediction: PredictionResult | None = None
    contrasts: list[ContrastResult] = []


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Write a record as indented JSON, whole or not at all."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def read_record(path: Path, type_: type[S]) -> S:
    """Read a record.

    Raises:
        CorruptError: the file is not such a record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: not a {type_.__name__}: {error}; remove it") from None


def sealed(record: RunRecord) -> RunRecord:
    """Return the record with its seal."""
    return msgspec.structs.replace(record, seal=_seal(msgspec.to_builtins(record)))


def read_run(path: Path, key: str) -> RunRecord | None:
    """Read the record of the run with this key, as it was written; None if it is another run's.

    Baselines and curves are in no other file, so the record is held against its seal.

    Raises:
        CorruptError: the file is not such a record, or something changed it.
    """
    record = read_record(path, RunRecord)
    if record.run_key != key:  # not this one's to judge
        return None
    if record.seal and record.seal != _seal(msgspec.json.decode(path.read_bytes())):
        raise CorruptError(
            f"{path}: is not as it was written (its seal is of other values); remove it, and"
            " the same command makes it anew"
        )
    return record


def _seal(plain: dict[str, Any]) -> str:
    """Return the hash of a record's file; of the file, so that a later field breaks no seal."""
    return stable_hash({key: plain[key] for key in plain if key not in {"seal", "facts"}})


def read_metrics(folder: Path, until: int) -> list[Metrics]:
    """Return the metrics of a run up to step `until`; a line cut off by a crash is left out."""
    path = folder / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = msgspec.json.decode(line, type=Metrics)
        except msgspec.DecodeError:
            break
        if row.step <= until:
            rows.append(row)
    return rows


def read_progress(folder: Path) -> tuple[int, float, float, float | None]:
    """Return (step, loss, tokens/s, latest bpb of the curve) of a run under way; zeros before."""
    step, loss, speed, bpb = 0, 0.0, 0.0, None
    path = folder / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in reversed(lines):
        if not line.endswith(b"\n"):
            continue  # being written
        row = msgspec.json.decode(line, type=Metrics)
        if not step:
            step, loss, speed = row.step, row.loss, row.tokens_per_s
        if row.valid_bpb is not None:
            return step, loss, speed, row.valid_bpb
    return step, loss, speed, bpb


def curve_of(rows: list[Metrics]) -> list[CurvePoint]:
    """Return the points at which validation was done, with the mean loss since the last one."""
    points, losses = [], []
    for row in rows:
        losses.append(row.loss)
        if row.valid_bpb is not None:
            mean = float(np.mean(losses))
            points.append(CurvePoint(row.step, row.tokens, mean, row.valid_bpb))
            losses = []
    return points


def write_valid(folder: Path, bits: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> str:
    """Write bits and raw bytes of every validation document; return the file's sha256."""
    buffer = io.BytesIO()
    np.savez(buffer, bits=bits, bytes=sizes)
    data = buffer.getvalue()
    write_atomic(folder / VALID, data)
    return hashlib.sha256(data).hexdigest()


def read_valid(folder: Path, sha256: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read bits `float64[n]` and bytes `int64[n]` of every validation document of a run.

    Raises:
        CorruptError: the file is missing or does not match the hash in `run.json`.
    """
    path = folder / VALID
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptError(f"{path}: does not match {RUN}; remove both to run it again")
    with np.load(io.BytesIO(data)) as arrays:
        return arrays["bits"], arrays["bytes"]
