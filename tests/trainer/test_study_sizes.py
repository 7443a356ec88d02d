import msgspec
import numpy as np
import pytest

from shards.errors import TrainingError
from tests.trainer.records import arm_result, run_record, study_record
from trainer.config import TrainConfig
from trainer.study_config import StudyConfig
from trainer.study_sections import repeat_words
from trainer.study_sizes import (
    SizedPoints,
    SizeLaw,
    fit_seed,
    fit_sizes,
    fit_studies,
    law_at,
    usable_parameters,
)

LAW = SizeLaw(E=1.2, A=60.0, alpha=0.35, B=90.0, beta=0.35, gain=0.05)
BUDGET = 4e6
SIZES = (2e5, 1e6, 5e6)


def points(data, size, noise=0.0, rng=None, law=LAW):
    """Curves of three sizes and of 1, 2, 4 and 8 readings."""
    shares = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0])
    rows = [
        (N, share * BUDGET, BUDGET / times, 0.0, float(share == 1))
        for N in SIZES for times in (1, 2, 4, 8) for share in shares
    ]  # fmt: skip
    found = SizedPoints(*np.array(rows).T)
    bpb = law_at(found, law, data, size)
    if rng is not None:
        bpb = bpb + noise * rng.standard_normal(len(bpb))
    return found._replace(bpb=bpb)


def test_usable_parameters_are_those_of_least_loss_for_their_compute():
    unique = np.array([1e6])
    best = usable_parameters(LAW, unique)[0]
    sizes = best * np.geomspace(0.5, 2, 201)
    loss = LAW.A * sizes**-LAW.alpha + LAW.B * (best * 1e6 / sizes) ** -LAW.beta
    assert sizes[np.argmin(loss)] == pytest.approx(best, rel=0.01)


def test_a_planted_law_and_both_constants_are_found():
    one = points(6.0, 3.0)
    assert (one.parameters > usable_parameters(LAW, one.unique)).any()
    found = fit_seed(one)
    assert (found.law.alpha, found.law.beta) == pytest.approx((0.35, 0.35), rel=0.05)
    assert (found.data, found.size) == pytest.approx((6, 3), rel=0.05)
    rng = np.random.default_rng(0)
    fit = fit_sizes([points(6.0, 3.0, 5e-4, rng) for _ in range(3)], ["raw"])
    assert fit.r_d_star == pytest.approx(6, rel=0.4)
    assert fit.r_d_interval[0] < 6 < fit.r_d_interval[1]
    assert fit.r_n_interval[0] < 3 < fit.r_n_interval[1]
    assert fit.error < 1e-2
    assert fit.reason == ""


def test_models_that_are_small_for_their_data_say_nothing_of_r_n():
    tiny = [points(6.0, 3.0, law=LAW._replace(A=6000.0)) for _ in range(2)]
    fit = fit_sizes(tiny, ["raw"])
    assert fit.r_n_star is None
    assert "more parameters than" in fit.reason


def test_runs_that_do_not_fall_fit_nothing():
    rising = points(6.0, 3.0)
    rising = rising._replace(bpb=rising.tokens)
    assert "2 of 2 seeds" in fit_sizes([rising, rising], ["raw"]).reason


def record(parameters, **changes):
    runs = [run_record(seed=seed) for seed in (1, 2)]
    study = StudyConfig(arms={"raw": "True"}, repeats=[2], seeds=[1, 2])
    made = study_record({"repeat-2": (0.0, -0.1, 0.1, "no difference seen")}, study=study)
    arms = {"raw": arm_result(runs), "repeat-2": arm_result(runs)}
    train = TrainConfig(decay=0.4)
    return msgspec.structs.replace(
        made, **({"parameters": parameters, "arms": arms, "train": train} | changes)
    )


def test_the_records_of_studies_are_enough():
    found = fit_studies([record(n) for n in (1000, 2000, 3000)])
    assert found.arms == ["raw", "repeat-2"]
    assert found.reason


def test_an_arm_that_failed_the_gate_is_left_out_and_named():
    """What it says would pull the law: here its curve is as high as no other."""
    three = [record(n) for n in (1000, 2000, 3000)]
    lost = msgspec.structs.replace(three[0].arms["repeat-2"], beats_baselines=False)
    lost = msgspec.structs.replace(
        lost, seeds=[msgspec.structs.replace(seed, curve=[]) for seed in lost.seeds]
    )
    arms = three[0].arms | {"repeat-2": lost}
    found = fit_studies([msgspec.structs.replace(three[0], arms=arms), *three[1:]])
    assert found.arms == ["raw", "repeat-2"]
    assert found.left_out == ["repeat-2 of 1,000 parameters"]
    assert repeat_words(found).endswith("did not pass the gate: repeat-2 of 1,000 parameters.")


def three_with(**changes):
    made = [record(n) for n in (1000, 2000, 3000)]
    return [*made[:2], msgspec.structs.replace(made[2], **changes)]


def failing(*names):
    arms = record(3000).arms
    return {
        name: msgspec.structs.replace(arm, beats_baselines=name not in names)
        for name, arm in arms.items()
    }


VALID = record(1).valid
OTHERS = [
    (three_with(gate_passed=False, gate="untrained"), "of 3,000 parameters is INCONCLUSIVE: untr"),
    (three_with(arms=failing("raw")), "of 3,000 parameters: its repeated arm raw did not pass"),
    (
        [msgspec.structs.replace(one, arms=failing("repeat-2")) for one in three_with()],
        r"no repeat arm .* passed the gate \(repeat-2 of 1,000 parameters, ",
    ),
    (
        three_with(valid=msgspec.structs.replace(VALID, bytes=299)),
        "differ in validation: 5 documents, 299 bytes: split .*; 5 documents, 300 bytes",
    ),
    (
        three_with(
            study=StudyConfig(
                arms={"raw": "True", "other": "True"}, repeats=[2], repeat_of="other", seeds=[1, 2]
            ),
            arms=record(1).arms | {"other": record(1).arms["raw"]},
        ),
        "differ in the arm that is repeated: other = True; raw = True",
    ),
    (
        three_with(
            arms=record(1).arms
            | {"raw": msgspec.structs.replace(record(1).arms["raw"], select="bytes > 9")}
        ),
        "differ in the arm that is repeated: raw = True; raw = bytes > 9",
    ),
]


@pytest.mark.parametrize(("records", "message"), OTHERS)
def test_what_one_law_cannot_hold_of_is_refused(records, message):
    with pytest.raises(TrainingError, match=message):
        fit_studies(records)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(1), record(2)], r"have 2 model sizes \(1, 2 parameters\)"),
        ([record(1), record(2), record(3, dataset_id="x")], "differ in dataset: d; x"),
        (
            [record(n, study=StudyConfig(arms={"raw": "1", "b": "1"})) for n in (1, 2, 3)],
            "no repeat arm",
        ),
    ],
)
def test_studies_that_do_not_belong_together_are_refused(records, message):
    with pytest.raises(TrainingError, match=message):
        fit_studies(records)
