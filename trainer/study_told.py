"""What a prediction was made for, so that a study can say whether it is the one that tests it.

Light: imports no torch. Hashes and not settings, since a recipe holds them beside the prediction.
"""

from typing import Any

import msgspec

from shards.hashing import stable_hash
from trainer.begun import definitions_of
from trainer.config import TrainConfig
from trainer.records import ArmResult, ValidResult
from trainer.study_config import Prediction, StudyConfig
from trainer.study_records import PredictionResult

OF_NO_EFFECT = (
    "seed", "tokens", "steps", "eval_every", "eval_tokens", "curve_tokens", "checkpoint_every",
    "checkpoint_async", "keep_checkpoints", "device", "recompute", "parallel", "rank_timeout_s",
    "replica_check_every", "prometheus_port", "tensorboard", "threads",
)  # fmt: skip
"""Settings that a prediction does not depend on, or that are looked at by themselves: seed, budget
and validation."""


def made_for(
    study: StudyConfig, arm: str, train: TrainConfig, valid: ValidResult
) -> dict[str, str]:
    """Return hashes of what a difference arm − control is about, by what they are of.

    "model" is the model and how it is trained, "version" what Assay makes of these settings.
    """
    settings = _set(msgspec.to_builtins(train), msgspec.to_builtins(TrainConfig()))
    parts = {
        "model": {key: value for key, value in settings.items() if key not in OF_NO_EFFECT},
        "validation": [valid.select, valid.documents, valid.tokens, valid.bytes],
        "control": study.arms[study.control],
        "arm": _content(study, arm),
        "version": definitions_of(train),
    }
    return {name: stable_hash(part)[:16] for name, part in parts.items()}


def _set(table: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that are not as by default: so a setting that is new changes no hash."""
    return {
        key: _set(value, default[key]) if isinstance(default.get(key), dict) else value
        for key, value in table.items()
        if value != default.get(key)
    }


def _content(study: StudyConfig, arm: str) -> object:
    """Return what the recipe says of an arm's documents."""
    for name in ("arms", "bands", "mixtures", "curricula"):
        table = getattr(study, name)
        if arm in table:
            cells = msgspec.to_builtins(study.cells) if name == "mixtures" else None
            return [name, msgspec.to_builtins(table[arm]), cells]
    return arm


def predicted(
    study: StudyConfig,
    results: dict[str, ArmResult],
    dataset_id: str,
    train: TrainConfig,
    valid: ValidResult,
) -> PredictionResult | None:
    """Hold what an earlier study foretold against what was measured."""
    told = study.prediction
    if told is None:
        return None
    arm = results[told.arm]
    if arm.delta is None or arm.ci_low is None or arm.ci_high is None:
        return None  # of the control there is nothing to foretell
    return PredictionResult(
        arm=told.arm,
        predicted=told.delta,
        low=told.low,
        high=told.high,
        measured=arm.delta,
        interval=(arm.ci_low, arm.ci_high),
        same_dataset=told.dataset_id == dataset_id,
        same_tokens=told.tokens in {None, arm.tokens},
        other=_changed(told, made_for(study, told.arm, train, valid)),
        held=None if arm.verdict == "INCONCLUSIVE" else told.low <= arm.delta <= told.high,
    )


def _changed(told: Prediction, now: dict[str, str]) -> list[str]:
    """Return what is another than the prediction was made for, as far as it says."""
    return [name for name, digest in now.items() if told.made_for.get(name, digest) != digest]
