from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.axes import nice_ticks, quantity, spread, tick_labels


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_inside_even_and_no_more_than_asked(low, size, count):
    ticks = nice_ticks(low, low + size, count)
    assert len(ticks) <= count + 1
    assert all(low - size * 1e-3 <= tick <= low + size * 1.001 for tick in ticks)
    steps = {round((b - a) / size, 6) for a, b in pairwise(ticks)}
    assert max(steps, default=0) - min(steps, default=0) < 1e-5


def test_ticks_are_round_numbers():
    assert nice_ticks(0, 151_552, 4) == [0, 50_000, 100_000, 150_000]
    assert nice_ticks(-0.14, 0.03, 5) == [-0.1, -0.05, 0.0]
    assert nice_ticks(2.0, 2.0) == [2.0]


def test_tick_labels_have_as_many_decimals_as_the_step_needs():
    assert tick_labels([-0.1, -0.05, 0.0]) == ["−0.10", "−0.05", "0.00"]
    assert tick_labels([0, 50_000]) == ["0", "50000"]
    assert tick_labels([]) == []


@given(st.lists(st.floats(0, 100), max_size=10))
def test_labels_keep_their_order_their_distance_and_the_plot(places):
    moved = spread(places, gap=6)
    ordered = [moved[i] for i in sorted(range(len(places)), key=lambda i: places[i])]
    assert all(b - a >= 6 - 1e-6 for a, b in pairwise(ordered))
    assert all(place <= 100 for place in moved)


def test_labels_that_do_not_overlap_stay_where_they_are():
    assert spread([80, 10, 50], gap=6) == [80, 10, 50]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (150_000, "150k"), (1_250_000, "1.25M")]
)
def test_quantity(value, text):
    assert quantity(value) == text


def test_quantity_with_more_digits():
    assert quantity(10_994_540, 4) == "10.99M"
