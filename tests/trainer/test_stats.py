import numpy as np
import pytest

from trainer.stats import (
    Interval,
    combine,
    document_interval,
    paired_difference,
    t_interval,
    verdict_of,
)

DOCUMENTS, LEVEL = 60, 0.05


def simulate(rng, *, delta, seeds, seed_sd, document_sd, noise_sd):
    """Bits of two arms: effect + seed + document + noise, per byte, in documents of many sizes."""
    sizes = rng.lognormal(6, 1, DOCUMENTS).astype(np.int64) + 50
    control = 2.0 * sizes * np.ones((seeds, 1))
    per_byte = (
        delta
        + seed_sd * rng.standard_normal((seeds, 1))
        + document_sd * rng.standard_normal((1, DOCUMENTS))
        + noise_sd * rng.standard_normal((seeds, DOCUMENTS))
    )
    return control + per_byte * sizes, control, sizes


def test_t_interval_of_known_numbers():
    low, high = t_interval(np.array([1.0, 2.0, 3.0]), 0.05)
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        t_interval(np.array([1.0]), 0.05)


def test_bootstrap_is_seeded_and_matches_the_normal_theory():
    rng = np.random.default_rng(0)
    sizes = np.full(400, 100)
    bits = 100 * (0.1 + rng.standard_normal(400))
    first = document_interval(bits, sizes, 0.05, 4000)
    assert first == document_interval(bits, sizes, 0.05, 4000)
    half = 1.96 * bits.std() / 100 / 20
    centre = bits.sum() / sizes.sum()
    assert first == pytest.approx((centre - half, centre + half), abs=0.1 * half)


def test_combined_half_widths_add_in_squares():
    both = combine(1.0, Interval(1 - 3, 1 + 6), Interval(1 - 4, 1 + 8))
    assert both == pytest.approx((1 - 5, 1 + 10))


@pytest.mark.parametrize(
    ("interval", "gate", "verdict"),
    [
        (Interval(-2, -1), True, "arm better"),
        (Interval(1, 2), True, "arm worse"),
        (Interval(-1, 1), True, "no difference seen"),
        (Interval(-2, -1), False, "INCONCLUSIVE"),
    ],
)
def test_verdicts(interval, gate, verdict):
    assert verdict_of(interval, gate) == verdict


def test_a_planted_effect_is_found():
    rng = np.random.default_rng(1)
    arm, control, sizes = simulate(
        rng, delta=-0.05, seeds=3, seed_sd=0.003, document_sd=0.03, noise_sd=0.02
    )
    result = paired_difference(arm, control, sizes, LEVEL, 500)
    assert verdict_of(result.both, gate_passed=True) == "arm better"
    assert result.both.low <= min(result.seeds.low, result.documents.low)
    assert result.both.high >= max(result.seeds.high, result.documents.high)


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "document_sd", "noise_sd"),
    [(3, 0.005, 0.0, 0.0), (3, 0.0, 0.05, 0.02), (3, 0.005, 0.05, 0.02), (2, 0.003, 0.03, 0.03)],
)
def test_intervals_cover_and_nulls_are_not_called_effects(seeds, seed_sd, document_sd, noise_sd):
    """Over 400 studies of a null, misses are a binomial draw: 5 % plus three standard errors."""
    rng = np.random.default_rng(2)
    studies = 400
    misses = 0
    for _ in range(studies):
        arm, control, sizes = simulate(
            rng,
            delta=0.0,
            seeds=seeds,
            seed_sd=seed_sd,
            document_sd=document_sd,
            noise_sd=noise_sd,
        )
        result = paired_difference(arm, control, sizes, LEVEL, 200)
        misses += verdict_of(result.both, gate_passed=True) != "no difference seen"
    assert misses / studies <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / studies)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(4, np.int64), 0.05, 100)
