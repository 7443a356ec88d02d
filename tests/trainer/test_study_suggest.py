import tomllib

import msgspec
import numpy as np
import pytest

from shards.config import decode
from shards.errors import TrainingError
from tests.trainer.records import arm_result, run_record, study_record
from trainer.config import TrainConfig
from trainer.study_config import Cells, StudyConfig
from trainer.study_suggest import ARM, recipe_text, suggest, suggestion_summary, suggestion_words
from trainer.study_worth import worth_model

CELLS = [("docs/1", 400_000, 2_000_000), ("docs/2", 400_000, 1_000_000), ("code", 200_000, 500_000)]
CONTROL = np.array([0.5, 0.3, 0.2])


def record_of(weights, *, noise=0.001, arms=8, tokens=400_000):
    """A study whose arms' bits per byte follow from their shares."""
    rng = np.random.default_rng(0)
    shares = np.concatenate([[CONTROL], rng.dirichlet(6 * CONTROL, arms)])
    bpb = (shares - CONTROL) @ weights + 2.2
    bpb = bpb[:, None] + noise * rng.standard_normal((arms + 1, 2))
    names = ["raw", *(f"probe-{i:02}" for i in range(1, arms + 1))]
    runs = [run_record(seed=seed) for seed in (1, 2)]
    results = {
        name: arm_result(runs, shares=dict(zip([c for c, _, _ in CELLS], row, strict=True)))
        for name, row in zip(names, shares.tolist(), strict=True)
    }
    study = StudyConfig(
        arms={"raw": "split == 'train'"}, repeats=[2], seeds=[1, 2], cells=Cells(signal="zstd_bpb")
    )
    record = study_record(
        {"x": (0.0, -0.1, 0.1, "no difference seen")},
        study=study,
        train=TrainConfig(tokens=tokens, learning_rate=0.02),
        tokens=tokens,
    )
    return msgspec.structs.replace(
        record, arms=results, worth=worth_model(names, CELLS, shares, bpb)
    )


def test_more_is_taken_of_what_helped_and_the_prediction_is_of_its_sign():
    found = suggest(record_of(np.array([0.2, -0.3, 0.1])))
    assert found.low < found.expected_low < found.delta < found.expected_high < 0
    assert found.low < found.delta < found.high
    assert sum(found.weights.values()) == pytest.approx(1, abs=0.01)
    # docs/2 has 0.4 of the control's tokens: twice as many a byte as docs/1.
    assert found.weights["docs/2"] > 0.55
    assert found.weights["docs/1"] < 0.4


def test_the_recipe_is_a_study_that_tests_the_prediction_on_fresh_seeds():
    record = record_of(np.array([0.2, -0.3, 0.1]))
    found = suggest(record)
    table = tomllib.loads(recipe_text(record, found))
    study = decode(table, "study", StudyConfig)
    assert study == found.study
    assert study.seeds == [3, 4]
    assert study.prediction.seeds == [1, 2]
    assert study.prediction.tokens == record.tokens
    assert study.expected_seed_sd == pytest.approx((2 * record.worth.noise) ** 0.5, rel=0.05)
    assert table["study"]["random_like"] == [ARM]  # docs/2 allows 0.7 M of the control's 0.8 M
    assert study.prediction.low == pytest.approx(found.low, abs=1e-6)
    assert study.arm_names == ["raw", ARM, f"random-{ARM}"]
    assert study.cells.signal == "zstd_bpb"
    assert decode(table, "train", TrainConfig) == record.train


@pytest.mark.parametrize(("limit", "wanted"), [(0.7, ["dropped == ''", "bytes > 9"]), (1.0, [])])
def test_the_next_validation_is_apart_from_all_that_the_first_one_was(limit, wanted):
    record = record_of(np.array([0.2, -0.3, 0.1]))
    first = record.study
    arms = first.arms | {"clean": "dropped == ''", "twin": first.arms["raw"]}
    changes = {"arms": arms, "max_overlap": limit, "apart_from": ["bytes > 9"]}
    record = msgspec.structs.replace(record, study=msgspec.structs.replace(first, **changes))
    study = decode(tomllib.loads(recipe_text(record, suggest(record))), "study", StudyConfig)
    assert study.apart_from == wanted
    assert set(wanted) <= set(study.expressions)


def test_a_mixture_as_large_as_the_control_has_no_random_subset():
    record = record_of(np.array([0.2, -0.3, 0.1]))
    raw = msgspec.structs.replace(record.arms["raw"], available_tokens=500_000)
    record = msgspec.structs.replace(record, arms=record.arms | {"raw": raw})
    found = suggest(record)
    assert found.study.random_like is None  # the data decides
    assert "random_like" not in recipe_text(record, found)


@pytest.mark.parametrize("arms", [2, 3, 4, 8])
def test_a_suggestion_from_few_arms_says_that_it_is_a_guess(arms):
    record = record_of(np.array([0.2, -0.3, 0.1]), arms=arms)
    found = suggest(record)
    words = f"From {arms} arms besides the control: below 4 the interval is mostly the prior's"
    assert (words in suggestion_words(record, found)) is (arms < 4)
    text = recipe_text(record, found)
    assert (f"# {words}" in text) is (arms < 4)
    assert decode(tomllib.loads(text), "study", StudyConfig) == found.study


def test_what_nobody_knows_is_not_promised():
    record = record_of(np.zeros(3), noise=0.02)
    found = suggest(record)
    assert found.expected_high > 0 or found.delta > -0.01
    words = suggestion_words(record, found)
    assert "8 arms are predicted with an error of" in words
    assert suggestion_summary(record, found)["weights"] == found.weights


def test_no_cell_is_read_more_than_four_times():
    found = suggest(record_of(np.array([0.2, -0.3, 0.1]), tokens=2_400_000))
    for cell, tokens, _ in CELLS:
        assert found.weights[cell] * 2_400_000 <= 4.01 * tokens
    with pytest.raises(TrainingError, match="more than 4 times in 9,000,000 tokens"):
        suggest(record_of(np.array([0.2, -0.3, 0.1]), tokens=9_000_000))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate_passed": False, "gate": "untrained"}, "INCONCLUSIVE.*untrained"),
        (
            {"worth": None},
            r"the control the study has no arm, .* add mixtures to it, such as \[study.probes\]",
        ),
        (
            {"worth": None, "arms": {"raw": arm_result([run_record()])}},
            "an older Assay wrote it.*run assay study with the same recipe",
        ),
    ],
)
def test_a_study_that_says_nothing_of_worth_suggests_nothing(changes, message):
    record = msgspec.structs.replace(record_of(np.ones(3)), **changes)
    with pytest.raises(TrainingError, match=message):
        suggest(record)
