import msgspec
import numpy as np
import pytest
from scipy import stats

from pipelines.report.curves import (
    MOST_CURVES,
    NO_CURVE,
    band_of,
    drawn,
    forest,
    run_curves,
    study_curves,
    styles,
)
from pipelines.report.study import ArmResult, CurvePoint, Run, Study


@pytest.fixture
def study(make_study):
    return msgspec.convert(make_study("x" * 32), Study)


def test_band_is_the_t_interval_of_the_mean_over_seeds(make_arm):
    arm = msgspec.convert(make_arm(2.0, seeds=(1, 2, 3)), ArmResult)
    tokens, mean, low, high = band_of(arm, 0.05)
    values = np.array([2.01, 2.02, 2.03])
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert tokens.tolist() == [1000, 2000]
    assert mean.tolist() == pytest.approx([2.5, 2.02])
    assert (low[1], high[1]) == pytest.approx(expected)
    assert low[0] == high[0] == 2.5


def test_band_of_two_seeds_is_their_range(make_arm):
    arm = msgspec.convert(make_arm(2.0, seeds=(1, 2)), ArmResult)
    _, _, low, high = band_of(arm, 0.05)
    assert (low[1], high[1]) == pytest.approx((2.01, 2.02))


def test_curves_end_at_the_scores_of_the_table_and_not_at_their_points(make_study):
    """Points are measured on few documents, here ones on which the arms stand the other way."""
    made = make_study("x")
    for arm, wrong in zip(made["arms"].values(), (-0.3, 0.2), strict=True):
        for seed in arm["seeds"]:
            for point in seed["curve"]:
                point["valid_bpb"] += wrong
    study = msgspec.convert(made, Study)
    for arm in study.arms.values():
        _, mean, low, high = band_of(arm, 0.05)
        scores = [seed.bpb for seed in arm.seeds]
        assert mean[-1] == pytest.approx(np.mean(scores))
        assert low[-1] < min(scores) < max(scores) < high[-1]
        first = [seed.curve[0].valid_bpb - seed.curve[-1].valid_bpb for seed in arm.seeds]
        assert mean[0] - mean[-1] == pytest.approx(np.mean(first))  # moved, not bent
    assert [label.text for label in study_curves(study).labels][:2] == [
        "2.420 raw",
        "2.320 curated",
    ]


def test_only_places_that_all_seeds_have_are_drawn(make_arm):
    arm = make_arm(2.0, seeds=(1, 2))
    del arm["seeds"][0]["curve"][0]
    assert band_of(msgspec.convert(arm, ArmResult), 0.05)[0].tolist() == [2000]


def test_curves_place_lower_bpb_lower_and_the_end_at_the_right(study):
    chart = study_curves(study)
    raw, curated = chart.series
    ends = [line.line.split("L")[-1].split() for line in (raw, curated)]
    assert [end[0] for end in ends] == ["100.00", "100.00"]
    assert float(ends[0][1]) < float(ends[1][1])  # y grows downwards
    assert "t interval of the mean over 3 seeds" in chart.band
    assert [level.kind for level in chart.levels] == ["unigram", "bigram", "zstd"]
    assert [label.text for label in chart.labels] == [
        "2.420 raw", "2.320 curated", "3.200 unigram", "2.600 bigram", "2.900 zstd",
    ]  # fmt: skip
    assert chart.control == "raw"
    assert all(0 <= tick.at <= 100 for tick in [*chart.x, *chart.y])


def test_a_study_without_curves_has_no_chart(make_study, make_arm):
    arm = make_arm(2.0)
    for seed in arm["seeds"]:
        seed["curve"] = []
    assert study_curves(msgspec.convert(make_study("x", arms={"raw": arm}), Study)) is None


def test_a_single_run_is_a_line_without_a_band():
    run = msgspec.convert(
        {
            "dataset_id": "x", "select": "True", "seed": 1, "config": {}, "parameters": 1,
            "tokens": 2, "epochs": 1.0, "bpb": 2.0, "baselines": {"unigram": 3, "bigram": 2.5},
            "curve": [{"tokens": 1, "valid_bpb": 2.5}, {"tokens": 2, "valid_bpb": 2.0}],
        },
        Run,
    )  # fmt: skip
    chart = run_curves(run)
    (line,) = chart.series
    assert (line.name, chart.control) == ("model", "")
    assert chart.labels[0].text == "2.000 model"
    moved = run_curves(msgspec.structs.replace(run, bpb=2.2))
    assert moved.labels[0].text == "2.200 model"
    assert run_curves(msgspec.structs.replace(run, curve=[])) is None
    assert run.curve[0] == CurvePoint(1, 2.5)


def test_forest_places_intervals_left_of_zero_where_the_arm_is_better(study):
    chart = forest(study)
    (row,) = chart.rows
    assert row.name == "curated"
    assert row.both[0] < row.documents[0] < row.seeds[0] < row.at < row.seeds[1] < row.both[1]
    assert row.both[1] < chart.zero < 100
    assert any(tick.label == "0.00" and tick.at == pytest.approx(chart.zero) for tick in chart.x)


def test_no_difference_is_no_forest(make_study, make_arm):
    only = msgspec.convert(make_study("x", arms={"raw": make_arm(2.0)}), Study)
    assert forest(only) is None


def test_of_many_arms_the_control_and_the_most_different_are_drawn(make_study, make_arm):
    arms = {"raw": make_arm(2.0)}
    arms |= {f"arm{i}": make_arm(2.0) | {"delta": 0.01 * i} for i in range(1, 12)}
    study = msgspec.convert(make_study("x", arms=arms), Study)
    assert drawn(study) == ["raw", *(f"arm{i}" for i in range(7, 12))]
    chart = study_curves(study)
    assert [line.name for line in chart.series] == drawn(study)
    assert [line.style for line in chart.series] == list(range(MOST_CURVES))  # each its own
    assert styles(study, ["arm6", "arm7"]) == [NO_CURVE, 1]
    assert chart.arms == 12
    assert len(chart.levels) == 3  # the control's, not each arm's


def test_the_coverage_is_said_once_where_all_arms_have_the_same(make_study, make_arm):
    found = {"delta": 0.1, "ci_low": 0.0, "ci_high": 0.2, "level": 0.025}
    arms = {"raw": make_arm(2.0), "a": make_arm(2.1) | found, "b": make_arm(2.1) | found}
    chart = forest(msgspec.convert(make_study("x", arms=arms), Study))
    assert chart.coverage == "all 97.5\u202f%"
    arms["b"] |= {"level": None}
    chart = forest(msgspec.convert(make_study("x", arms=arms), Study))
    assert chart.coverage == "a: 97.5\u202f%, b: 95\u202f%"
