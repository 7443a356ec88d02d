import numpy as np
import pytest
from scipy import stats

from trainer.stats import paired_differences, verdict_of
from trainer.study_config import StudyConfig
from trainer.study_power import detectable_difference, planned_difference, power_line, power_of

PLAN = {"seeds": 4, "seed_sd": 0.01, "document_sd": 0.04, "documents": 50.0, "level": 0.05}


def test_seeds_alone_give_the_power_of_a_t_test():
    plan = PLAN | {"document_sd": 1e-9}
    shift = 0.02 / (0.01 / np.sqrt(4))
    expected = stats.nct.sf(stats.t.ppf(0.975, 3), 3, shift)
    assert power_of(0.02, **plan) == pytest.approx(expected, abs=0.005)


def test_the_detectable_difference_is_the_inverse_of_power():
    effect = detectable_difference(**PLAN, power=0.9)
    assert power_of(effect, **PLAN) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "smaller"),
    [
        ({"seeds": 8}, True),
        ({"documents": 500.0}, True),
        ({"seed_sd": 0.02}, False),
        ({"document_sd": 0.08}, False),
        ({"level": 0.01}, False),
    ],
)
def test_more_data_sees_smaller_differences(change, smaller):
    assert (detectable_difference(**PLAN | change) < detectable_difference(**PLAN)) == smaller


def test_a_study_finds_the_planned_difference_as_often_as_promised():
    """A binomial draw of 300 studies around the promise of 80 %, four standard errors."""
    rng = np.random.default_rng(0)
    seeds, documents, studies = 4, 50, 300
    sizes = np.full(documents, 1000)
    effect, found = detectable_difference(**PLAN), 0
    for _ in range(studies):
        per_byte = (
            -effect
            + PLAN["seed_sd"] * rng.standard_normal((seeds, 1))
            + PLAN["document_sd"] * rng.standard_normal((1, documents))
        )
        arm, control = per_byte * sizes, np.zeros((seeds, documents))
        result = paired_differences({"arm": arm}, control, sizes, PLAN["level"], 200)["arm"]
        found += verdict_of(result.both, gate_passed=True) == "arm better"
    assert found / studies == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / studies))


def test_noise_of_seed_and_document_counts_in_both_and_the_promise_holds():
    """By the standard deviations as measured; 300 studies, four standard errors."""
    rng = np.random.default_rng(1)
    seeds, documents, studies, seed, document, joint = 4, 50, 300, 0.002, 0.01, 0.05
    sizes = np.full(documents, 1000)
    effect = detectable_difference(
        seeds=seeds, documents=float(documents), level=0.05,
        seed_sd=float(np.hypot(seed, joint / np.sqrt(documents))),
        document_sd=float(np.hypot(document, joint / np.sqrt(seeds))),
    )  # fmt: skip
    found = 0
    for _ in range(studies):
        noise = (
            seed * rng.standard_normal((seeds, 1))
            + document * rng.standard_normal((1, documents))
            + joint * rng.standard_normal((seeds, documents))
        )
        arm = (noise - effect) * sizes
        result = paired_differences({"arm": arm}, np.zeros_like(arm), sizes, 0.05, 200)["arm"]
        found += verdict_of(result.both, gate_passed=True) == "arm better"
    assert found / studies >= 0.8 - 4 * np.sqrt(0.8 * 0.2 / studies)


def test_more_arms_see_less():
    sizes = np.full(100, 1000)
    two, four = StudyConfig(), StudyConfig(repeats=[2, 4])
    assert planned_difference(two, sizes) < planned_difference(four, sizes)
    assert "3 seeds, 100 validation documents (worth 100 of equal size), 3 comp" in power_line(
        four, sizes
    )
