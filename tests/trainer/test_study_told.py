import tomllib

import msgspec
import numpy as np
import pytest

from shards.config import decode
from tests.trainer.records import arm_result, run_record
from tests.trainer.test_study_suggest import record_of
from trainer.config import DEFINITIONS, ModelConfig, TrainConfig
from trainer.study_config import Cells, Mix, StudyConfig
from trainer.study_suggest import ARM, recipe_text, suggest
from trainer.study_told import made_for, predicted

RECORD = record_of(np.array([0.2, -0.3, 0.1]))
NEXT = decode(tomllib.loads(recipe_text(RECORD, suggest(RECORD))), "study", StudyConfig)
MEASURED = {ARM: arm_result([run_record()], delta=-0.1, ci_low=-0.2, ci_high=0.0)}


def other(study=NEXT, train=RECORD.train, valid=RECORD.valid):
    return predicted(study, MEASURED, "d", train, valid).other


def test_the_study_that_was_suggested_is_what_the_prediction_was_made_for():
    assert set(NEXT.prediction.made_for) == {"model", "validation", "control", "arm", "version"}
    assert other() == []
    old = msgspec.structs.replace(NEXT.prediction, made_for={})  # by an older Assay: unknown
    assert other(msgspec.structs.replace(NEXT, prediction=old, control="raw")) == []


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("model", {"train": {"model": ModelConfig(layers=1)}}),
        ("model", {"train": {"learning_rate": 0.25}}),
        ("validation", {"valid": {"select": "bytes < 3_000"}}),
        ("validation", {"valid": {"documents": 4}}),
        ("control", {"study": {"arms": {"raw": "True"}}}),
        ("arm", {"study": {"mixtures": {ARM: Mix(weights={"code": 1.0})}}}),
        ("arm", {"study": {"cells": Cells(signal="bytes")}}),
        (None, {"train": {"tokens": 77, "seed": 9, "threads": 2, "eval_every": 3}}),
        (None, {"study": {"seeds": [8, 9], "random_like": []}}),
    ],
)
def test_what_else_it_is_tested_on_is_named(what, changes):
    given = {"study": NEXT, "train": RECORD.train, "valid": RECORD.valid}
    for key, values in changes.items():
        given[key] = msgspec.structs.replace(given[key], **values)
    assert other(**given) == ([what] if what else [])


def test_another_version_of_the_trainer_is_another_test(monkeypatch):
    monkeypatch.setitem(DEFINITIONS, "model", "of a later Assay")
    assert other() == ["version"]


def test_a_setting_that_is_new_and_as_by_default_changes_nothing(monkeypatch):
    before = made_for(NEXT, ARM, RECORD.train, RECORD.valid)

    class Later(TrainConfig, frozen=True, kw_only=True):
        novelty: int = 1

    monkeypatch.setattr("trainer.study_told.TrainConfig", Later)
    later = msgspec.convert(msgspec.to_builtins(RECORD.train), Later)
    assert made_for(NEXT, ARM, later, RECORD.valid) == before
