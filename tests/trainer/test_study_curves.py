import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.study_curves import (
    Curve,
    Measured,
    Need,
    area,
    data_multiplier,
    effective_data,
    mean_curve,
    tokens_needed,
    tokens_to_target,
    undecayed,
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


def decayed(scale=1.0, steps=20, gain=0.3):
    """A run on `power(scale)` whose last 40 % gain `gain` more, as its decay does."""
    tokens = np.arange(1, steps + 1) * 1e6 / steps
    drop = np.clip((tokens / 1e6 - 0.6) / 0.4, 0, 1)
    return Curve(tokens, power(scale, tokens=tokens).bpb - gain * drop)


def worth(scale, half=0.01, **changes):
    """The multiplier of data worth `scale` times as much, whose difference is known to `half`."""
    arms = [decayed(scale), decayed(scale)]
    controls = [decayed(), decayed()]
    delta = float(arms[0].bpb[-1] - controls[0].bpb[-1])
    found = Measured(delta, delta - half, delta + half)
    settings = {"decay_from": 6e5, "level": 0.05} | changes
    return effective_data(arms, controls, found, **settings)


@given(st.floats(0.4, 2.5))
def test_data_worth_m_times_as_much_has_the_multiplier_m(scale):
    """Whatever the decay at the end of the run gains."""
    found = worth(scale)
    assert found.value == pytest.approx(scale, rel=0.12)  # another floor than the curve has
    assert found.interval[0] <= found.value <= found.interval[1]


@given(st.floats(-0.15, 0.15))
def test_changing_sides_inverts_the_multiplier(delta):
    one, other = undecayed(decayed(1.3), 6e5), undecayed(decayed(), 6e5)
    there, back = data_multiplier(delta, one, other), data_multiplier(-delta, other, one)
    assert there * back == pytest.approx(1)
    assert (there > 1) == (delta < 0) or there == 1


@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.1))
def test_the_interval_leaves_out_1_where_that_of_the_difference_leaves_out_0(delta, half):
    rng = np.random.default_rng(0)
    runs = [decayed()._replace(bpb=decayed().bpb + 0.01 * rng.normal(size=20)) for _ in range(3)]
    found = Measured(delta, delta - half, delta + half)
    low, high = effective_data(runs, runs, found, 6e5, 0.05).interval
    assert low < high
    assert (low > 1) == (found.high < 0) or found.high == 0
    assert (high < 1) == (found.low > 0) or found.low == 0


def test_seeds_that_disagree_on_the_slope_make_the_interval_wide():
    arms = [decayed(gain=0.2), decayed(gain=0.2)]
    steep = [arms[0], Curve(arms[1].tokens, 2 * arms[1].bpb)]
    found = Measured(-0.1, -0.1, -0.1)
    low, high = effective_data(arms, arms, found, 6e5, 0.05).interval
    assert low == pytest.approx(high)
    low, high = effective_data(steep, steep, found, 6e5, 0.05).interval
    assert low == 1
    assert high > 2


@pytest.mark.parametrize("decay_from", [0.0, 1e5])
def test_without_a_curve_before_the_decay_data_worth_is_unknown(decay_from):
    """A cosine has none, and two points are no line."""
    assert worth(1.5, decay_from=decay_from) is None
    assert undecayed(decayed(), decay_from) is None


def test_a_curve_that_does_not_fall_says_nothing():
    assert undecayed(Curve(TOKENS, TOKENS), TOKENS[-1]) is None
    assert data_multiplier(0.1, undecayed(power(), 1e6), None) is None
    assert data_multiplier(-0.1, undecayed(power(), 1e6), None) > 1  # the better side is read


def test_what_lies_outside_of_the_curves_is_not_guessed():
    one = undecayed(decayed(), 6e5)
    assert data_multiplier(9.0, one, one) is None
    assert worth(1.5, half=9.0).interval == (None, None)
    assert worth(1.5).value == pytest.approx(1.5, rel=0.1)


def test_without_a_decay_the_curve_is_the_run():
    found = undecayed(power(), TOKENS[-1])
    assert found.tokens.tolist() == TOKENS.tolist()
    assert found.bpb.tolist() == power().bpb.tolist()


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
