import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.study_curves import (
    Curve,
    Need,
    area,
    data_multiplier,
    effective_data,
    mean_curve,
    tokens_needed,
    tokens_to_target,
)

TOKENS = np.arange(1, 11) * 1e5


def power(scale=1.0, floor=1.0, exponent=0.3, tokens=TOKENS):
    """A curve whose data is worth `scale` times as much."""
    return Curve(tokens, floor + 40 * (scale * tokens) ** -exponent)


def test_tokens_to_a_target_are_interpolated_in_log_tokens():
    curve = Curve(np.array([100.0, 400.0]), np.array([3.0, 1.0]))
    assert tokens_to_target(curve, 2.0) == pytest.approx(200)
    assert tokens_to_target(curve, 1.0) == pytest.approx(400)
    assert tokens_to_target(curve, 3.0) == 100
    assert tokens_to_target(curve, 0.9) is None
    assert tokens_to_target(curve, 3.1) is None


def test_a_dip_is_not_the_target_reached():
    curve = Curve(np.array([1.0, 2.0, 4.0, 8.0]), np.array([4.0, 2.0, 3.0, 1.0]))
    assert tokens_to_target(curve, 2.5) == pytest.approx(4 * 2**0.25)
    assert data_multiplier(curve, curve) == 1


@given(st.floats(0.2, 5))
def test_data_worth_m_times_as_much_has_the_multiplier_m(scale):
    multiplier = data_multiplier(power(scale), power())
    assert multiplier == pytest.approx(scale, rel=0.02)


@given(st.floats(0.2, 5))
def test_changing_sides_inverts_the_multiplier(scale):
    one, other = power(scale), power()
    assert data_multiplier(one, other) == pytest.approx(1 / data_multiplier(other, one))


def test_what_lies_outside_of_the_curves_is_not_guessed():
    assert data_multiplier(power(100), power()) is None
    assert data_multiplier(power(0.01), power()) is None


def test_an_interval_over_seeds_holds_the_multiplier():
    rng = np.random.default_rng(0)
    scales = 2 * np.exp(0.05 * rng.standard_normal(5))
    arms, controls = [power(scale) for scale in scales], [power()] * 5
    found = effective_data(arms, controls, 0.05)
    assert found.interval.low < found.value < found.interval.high
    assert found.value == pytest.approx(2, rel=0.1)
    assert effective_data(arms[:1], controls[:1], 0.05).interval is None
    assert effective_data([power(100)], [power()], 0.05) is None


def test_area_is_the_mean_height_over_log_tokens():
    assert area(Curve(np.array([1.0, 10, 100]), np.array([3.0, 2, 1]))) == pytest.approx(2)
    assert area(Curve(np.array([1.0]), np.array([3.0]))) is None


def test_curves_with_different_points_have_no_mean():
    assert mean_curve([power(), power()]).bpb == pytest.approx(power().bpb)
    with pytest.raises(ValueError, match="different points"):
        mean_curve([power(), power(tokens=TOKENS[:5])])


@pytest.mark.parametrize("floor", [0.2, 0.6, 1.2])
@pytest.mark.parametrize("times", [1.3, 2.0, 4.0])
def test_the_need_of_a_power_law_lies_in_its_interval(floor, times):
    curve = power(floor=floor)
    goal = power(floor=floor, tokens=TOKENS * times).bpb[-1]
    gap = curve.bpb[-1] - goal
    need = tokens_needed(curve, (gap, gap), TOKENS[-1])
    true = TOKENS[-1] * (times - 1)
    assert need.low <= true * 1.001
    assert need.high is None or need.high >= true * 0.999


def test_the_decay_is_not_extended():
    """Ten times steeper at the end: read as a slope, it would promise the target at once."""
    curve = power()
    decayed = curve.bpb - np.where(TOKENS > 6e5, (TOKENS - 6e5) / 1e6, 0)
    expected = tokens_needed(Curve(TOKENS[:6], curve.bpb[:6]), (0.05, 0.05), 6e5)
    found = tokens_needed(Curve(TOKENS, decayed), (0.05, 0.05), 6e5)
    assert found.low == pytest.approx(expected.low * 10 / 6, rel=0.1)


def test_unknown_is_said():
    flat = Curve(TOKENS, np.full(10, 2.0))
    assert tokens_needed(flat, (0.1, 0.1), 1e6) == Need(None, None)
    assert tokens_needed(power(), (0.1, 0.1), 2e5) == Need(None, None)
    assert tokens_needed(power(), (0.05, 5.0), 1e6).high is None
    assert tokens_needed(power(), (5.0, 5.0), 1e6) == Need(None, None)
