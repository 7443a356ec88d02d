import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from trainer.stats import (
    Errors,
    Interval,
    combine,
    effective_documents,
    holm,
    paired_differences,
    resample_documents,
    source_differences,
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


def errors(bits, sizes, samples=4000):
    """What is known of a difference whose seeds agree."""
    delta = bits.sum() / sizes.sum()
    resampled = resample_documents(bits[:, np.newaxis], sizes, samples)[:, 0]
    return Errors(delta, np.array([delta, delta]), resampled, effective_documents(sizes))


def test_bootstrap_is_seeded_and_matches_the_normal_theory():
    rng = np.random.default_rng(0)
    sizes = np.full(400, 100)
    bits = 100 * (0.1 + rng.standard_normal(400))
    first = errors(bits, sizes).documents(0.05)
    assert first == errors(bits, sizes).documents(0.05)
    half = 1.966 * bits.std(ddof=1) / 100 / 20
    centre = bits.sum() / sizes.sum()
    assert first == pytest.approx((centre - half, centre + half), abs=0.1 * half)


def test_many_documents_are_resampled_in_pieces():
    sizes = np.full(3000, 50)
    bits = 50 * np.random.default_rng(0).standard_normal(3000)
    found = resample_documents(bits[:, np.newaxis], sizes, 1500)[:, 0]
    assert len(found) == 1500
    assert found.std() == pytest.approx(bits.std() / 50 / np.sqrt(3000), rel=0.1)


def test_one_long_document_counts_as_few():
    assert effective_documents(np.full(10, 7)) == pytest.approx(10)
    assert effective_documents(np.array([1000, 1, 1, 1])) == 2
    narrow, wide = (
        errors(np.array(sizes) * np.tile([0.1, -0.1], 10), np.array(sizes)).documents(0.05)
        for sizes in ([10] * 20, [100, 100, *[1] * 18])
    )
    assert wide.high - wide.low > narrow.high - narrow.low


def test_a_bootstrap_needs_two_documents():
    with pytest.raises(ValueError, match="at least 2 documents, got 1"):
        resample_documents(np.ones((1, 1)), np.array([5]), 10)


@given(st.integers(0, 2**32), st.floats(-0.1, 0.1))
@settings(max_examples=40, deadline=None)
def test_the_interval_leaves_out_zero_exactly_below_the_p_value(seed, delta):
    rng = np.random.default_rng(seed)
    noise = {"seed_sd": 0.01, "document_sd": 0.05, "noise_sd": 0.02}
    arm, control, sizes = simulate(rng, delta=delta, seeds=3, **noise)
    by_seed = (arm - control).sum(axis=1) / sizes.sum()
    bits = (arm - control).mean(axis=0)[:, np.newaxis]
    found = Errors(
        by_seed.mean(),
        by_seed,
        resample_documents(bits, sizes, 200)[:, 0],
        effective_documents(sizes),
    )
    p_value = found.p_value()
    assert 1 / 201 <= p_value <= 1
    if p_value > 1 / 201:
        low, high = found.both(0.99 * p_value)
        assert low <= 0 <= high
    if p_value < 0.99:
        low, high = found.both(1.01 * p_value)
        assert not low <= 0 <= high


def test_holm_of_known_numbers():
    corrected, levels = holm(np.array([0.01, 0.04, 0.03, 0.005]), 0.05)
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_holm_says_the_same_by_levels_and_by_corrected_p_values(values, level):
    p_values = np.array(values)
    corrected, levels = holm(p_values, level)
    rejected = p_values < levels
    # Where products round across the level, the two may disagree by one ulp.
    clear = np.abs(corrected - level) > 1e-12
    assert (rejected == (corrected < level))[clear].all()
    assert (levels <= level).all()
    assert (levels >= level / len(values)).all()
    assert (corrected >= p_values).all()


def test_combined_half_widths_add_in_squares():
    both = combine(1.0, Interval(1 - 3, 1 + 6), Interval(1 - 4, 1 + 8))
    assert both == pytest.approx((1 - 5, 1 + 10))
    assert combine(1.0, Interval(1, 1), Interval(3, 4)) == (1, 4)


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
    result = paired_differences({"arm": arm}, control, sizes, LEVEL, 500)["arm"]
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
        result = paired_differences({"arm": arm}, control, sizes, LEVEL, 200)["arm"]
        misses += verdict_of(result.both, gate_passed=True) != "no difference seen"
    assert misses / studies <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / studies)


@pytest.mark.parametrize("documents", [2, 3, 6])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_intervals_from_few_documents_cover(documents, level):
    """As by source; of percentiles alone, two documents miss in 30 % of studies."""
    rng = np.random.default_rng(5)
    studies, misses = 400, 0
    for _ in range(studies):
        sizes = rng.integers(500, 2000, documents)
        low, high = errors(0.05 * rng.standard_normal(documents) * sizes, sizes, 300).documents(
            level
        )
        misses += not low <= 0 <= high
    assert misses / studies <= level + 3 * np.sqrt(level * (1 - level) / studies)


def test_many_arms_are_called_no_more_often_than_one():
    """Six arms like the control: any call is a false one; uncorrected, a fifth of studies has one.

    Seed noise alone, where the t interval has no slack.
    """
    rng = np.random.default_rng(3)
    studies, sizes = 300, np.full(20, 100)
    corrected = plain = 0
    for _ in range(studies):
        by_seed = 0.01 * rng.standard_normal((7, 3))
        bits = by_seed[:, :, np.newaxis] * np.ones(20) * sizes
        arms = {str(i): bits[i] for i in range(6)}
        results = paired_differences(arms, bits[6], sizes, LEVEL, 100).values()
        corrected += any(verdict_of(r.both, True) != "no difference seen" for r in results)
        plain += (ttest_1samp(by_seed[:6] - by_seed[6], 0, axis=1).pvalue < LEVEL).any()
    assert corrected / studies <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
    assert plain / studies > 2 * LEVEL


def test_intervals_of_many_arms_say_what_the_verdicts_say():
    rng = np.random.default_rng(4)
    noise = {"seeds": 3, "seed_sd": 0.01, "document_sd": 0.02, "noise_sd": 0.01}
    arm, control, sizes = simulate(rng, delta=0.0, **noise)
    arms = {str(i): arm - i * 0.03 * sizes for i in range(5)}
    results = paired_differences(arms, control, sizes, LEVEL, 500)
    for result in results.values():
        called = not result.both.low <= 0 <= result.both.high
        assert called == (result.p_value < LEVEL)
        assert LEVEL / 5 <= result.level <= LEVEL
    assert results["4"].p_value < LEVEL < results["0"].p_value


def test_no_arms_no_differences():
    assert paired_differences({}, np.zeros((2, 3)), np.ones(3, np.int64), 0.05, 100) == {}


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        paired_differences(
            {"x": np.zeros((2, 3))}, np.zeros((2, 3)), np.ones(4, np.int64), 0.05, 100
        )


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_each_source_is_a_study_of_its_own_at_its_part_of_the_level(seed):
    rng = np.random.default_rng(seed)
    sources = np.array([0, 0, 1, 3, 3, 3, 3])  # one document of source 1, none of 2
    sizes = rng.integers(100, 5000, 7)
    control = rng.normal(size=(3, 7)) * sizes
    arms = {name: control + rng.normal(size=(3, 7)) * sizes for name in ("a", "b")}
    found = source_differences(arms, control, sizes, sources, 0.06, 200)
    assert list(found) == [0, 3]
    own = sources == 3
    alone = {name: bits[:, own] for name, bits in arms.items()}
    assert found[3] == paired_differences(alone, control[:, own], sizes[own], 0.02, 200)


def test_by_source_nulls_are_called_no_more_often_than_the_level():
    """Any of two arms on any of four sources, two documents in some; 120 studies."""
    rng = np.random.default_rng(11)
    sources = np.repeat(np.arange(4), [2, 3, 5, 20])
    called = 0
    for _ in range(120):
        sizes = (rng.lognormal(8, 1.2, 30) + 100).astype(np.int64)
        bits = [
            (0.007 * rng.normal(size=(3, 1)) + 0.04 * rng.standard_t(5, (1, 30))) * sizes
            for _ in range(3)
        ]
        found = source_differences({"a": bits[0], "b": bits[1]}, bits[2], sizes, sources, 0.05, 200)
        called += any(
            verdict_of(difference.both, gate_passed=True) != "no difference seen"
            for by_arm in found.values()
            for difference in by_arm.values()
        )
    assert called <= 12  # a rate of 5 % exceeds this with a chance of 1 %
