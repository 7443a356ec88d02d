import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.study_curves import (
    Curve,
    Measured,
    Multiplier,
    Need,
    area,
    curve_error,
    effective_data,
    fit_family,
    log_multiplier,
    mean_curve,
    multiplier_words,
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
    assert found.interval[0] < found.value < found.interval[1]
    assert found.interval[0] < scale < found.interval[1]


@given(st.floats(-0.15, 0.15), st.floats(0.001, 0.1))
def test_changing_sides_inverts_multiplier_and_interval(delta, half):
    one, other = [decayed(1.3)], [decayed()]
    there = effective_data(one, other, Measured(delta, delta - half, delta + half), 6e5, 0.05)
    back = effective_data(other, one, Measured(-delta, -delta - half, half - delta), 6e5, 0.05)
    assert there.value * back.value == pytest.approx(1)
    assert there.interval[0] * back.interval[1] == pytest.approx(1)
    assert (there.value > 1) == (delta < 0) or there.value == 1


def noisy(seed, noise=0.01):
    rng = np.random.default_rng(seed)
    return [decayed()._replace(bpb=decayed().bpb + noise * rng.normal(size=20)) for _ in range(3)]


@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.1), st.integers(0, 20))
def test_the_interval_leaves_out_1_where_that_of_the_difference_leaves_out_0(delta, half, seed):
    found = Measured(delta, delta - half, delta + half)
    value, (low, high), _, _ = effective_data(noisy(seed), noisy(seed), found, 6e5, 0.05)
    low, high = 0 if low is None else low, np.inf if high is None else high
    assert low < value < high
    assert (low > 1) == (found.high < 0) or found.high == 0
    assert (high < 1) == (found.low > 0) or found.low == 0


@given(st.floats(-0.1, 0.1), st.integers(0, 20))
def test_a_wider_difference_widens_the_interval(delta, seed):
    def width(runs, half):
        found = Measured(delta, delta - half, delta + half)
        low, high = effective_data(runs, runs, found, 6e5, 0.05).interval
        return np.log((high or 1e9) / (low or 1e-9))

    calm, rough = [decayed()], noisy(seed, 0.02)
    assert width(calm, 0.02) < width(calm, 0.03)
    assert width(rough, 0.02) < width(rough, 0.03)


def test_the_error_of_the_form_spans_floors_and_gains_of_the_decay():
    family = fit_family(decayed(), 6e5)
    down, up = curve_error(family, 0.1, 0.05)
    places = [np.log(log_multiplier(law, 0.1)) for law in [*family.forms, *family.decays]]
    own = np.log(log_multiplier(family.law, 0.1))
    assert len(places) == 6
    assert own - down < min(places)
    assert own + up > max(places)


@pytest.mark.parametrize(("seeds", "noise", "error"), [(2, 0.02, 0.01), (5, 0.01, 0.002)])
@pytest.mark.parametrize(("scale", "floor"), [(0.7, 0.3), (1.0, 1.0), (1.5, 0.3), (1.5, 1.5)])
def test_intervals_of_data_worth_cover(seeds, noise, error, scale, floor):
    """Sixty studies; at 95 % fewer than 52 have a chance of 1 %."""
    rng = np.random.default_rng(3)
    tokens = np.arange(1, 13) * 1e6 / 12
    drop = 0.2 * np.clip((tokens / 1e6 - 0.6) / 0.4, 0, 1)
    true = [floor + (2.6 - floor) * (m * tokens / 1e6) ** -0.12 - drop for m in (scale, 1.0)]
    hits = 0
    for _ in range(60):
        arms, controls = (
            [Curve(tokens, bpb + noise * rng.standard_normal(12)) for _ in range(seeds)]
            for bpb in true
        )
        delta = true[0][-1] - true[1][-1] + error * rng.standard_normal()
        found = Measured(delta, delta - 1.96 * error, delta + 1.96 * error)
        low, high = effective_data(arms, controls, found, 6e5, 0.05).interval
        hits += (low or 0) <= scale <= (high or np.inf)
    assert hits >= 52


@pytest.mark.parametrize("decay_from", [0.0, 1e5])
def test_without_a_curve_before_the_decay_data_worth_is_unknown(decay_from):
    """A cosine has none, and two points are no line."""
    assert worth(1.5, decay_from=decay_from) is None
    assert fit_family(decayed(), decay_from) is None


def test_a_curve_that_does_not_fall_says_nothing():
    rising = Curve(TOKENS, TOKENS)
    assert fit_family(rising, TOKENS[-1]) is None
    assert effective_data([power()], [rising], Measured(0.1, 0, 0.2), 1e6, 0.05) is None
    found = effective_data([power()], [rising], Measured(-0.1, -0.2, 0.1), 1e6, 0.05)
    assert found.value > 1  # the better side is read
    assert found.interval[0] is None


def test_a_point_that_decides_whether_the_curve_falls_leaves_the_interval_open():
    bpb = np.array([3.0, 2.6, 2.51, 2.52, 2.53, 2.2, 2.1, 2.0, 1.9, 1.8])
    found = effective_data(
        [Curve(TOKENS, bpb)], [power()], Measured(-0.01, -0.02, -0.005), 5e5, 0.05
    )
    assert found.interval == (1.0, None)


@given(st.floats(-9.0, 9.0), st.floats(0.0, 9.0), st.integers(0, 5))
def test_what_lies_outside_of_the_curves_is_not_guessed(delta, half, seed):
    runs = noisy(seed)
    found = effective_data(runs, runs, Measured(delta, delta - half, delta + half), 6e5, 0.05)
    assert found.reach == pytest.approx(1e6 / 1.5e5)  # from the first point of the last factor of 4
    for number in (found.value, *found.interval):
        assert number is None or 0.999 / found.reach <= number <= 1.001 * found.reach
    assert found.beyond == (None if found.value else ">" if delta < 0 else "<")


def test_far_beyond_the_curves_the_near_end_is_their_reach():
    runs = [decayed()]
    found = effective_data(runs, runs, Measured(-9.0, -9.1, -8.9), 6e5, 0.05)
    assert found == Multiplier(None, (pytest.approx(found.reach), None), found.reach, ">")
    back = effective_data(runs, runs, Measured(9.0, 8.9, 9.1), 6e5, 0.05)
    assert back == Multiplier(None, (None, pytest.approx(1 / found.reach)), found.reach, "<")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Multiplier(1.7, (1.391, 2.12), 6.1), "×1.70 (1.39 to 2.12)"),
        (Multiplier(1.0, (None, None), 6.1), "×1.00 (< 0.16 to > 6.10)"),
        (Multiplier(None, (4.0, None), 6.1, ">"), "> ×6.10 (4.00 to > 6.10)"),
        (Multiplier(None, (None, 0.5), 6.1, "<"), "< ×0.16 (< 0.16 to 0.50)"),
        (Multiplier(1.25, (1.1, None)), "×1.25 (1.10 to unknown)"),  # an older record
        (Multiplier(None, (None, None)), "unknown"),
    ],
)
def test_words_say_what_is_beyond(found, words):
    assert multiplier_words(found) == words


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
