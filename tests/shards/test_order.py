import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.order import permute, sample_order

seeds = st.integers(0, 2**63 - 1)


@given(st.integers(1, 3000), seeds, st.integers(0, 2**40))
def test_each_epoch_is_a_permutation(n, seed, epoch):
    order = sample_order(np.arange(n) + epoch * n, n, seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@given(st.integers(1, 2**62), seeds, st.integers(0, 1000), st.data())
def test_stays_inside_and_distinct_for_huge_n(n, seed, epoch, data):
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True))
    found = [permute(place, n, seed, epoch) for place in places]
    assert all(0 <= value < n for value in found)
    assert len(set(found)) == len(places)


def test_array_and_scalar_forms_agree_across_epochs():
    indices = np.arange(25)
    order = sample_order(indices, 10, 3)
    assert order.tolist() == [permute(g % 10, 10, 3, g // 10) for g in indices]


def test_the_order_is_part_of_the_format():
    # Golden values: if they change, bump ORDER_VERSION, since every training run changes.
    assert sample_order(np.arange(20), 10, 0).tolist() == [
        2, 0, 3, 5, 4, 8, 7, 6, 9, 1,
        0, 4, 1, 3, 8, 5, 7, 6, 2, 9,
    ]  # fmt: skip
    assert permute(123456789, 10**12, 42, 7) == 836458983804


@pytest.mark.parametrize("vary", ["seed", "epoch"])
@pytest.mark.parametrize("n", [5, 16, 100])
def test_places_are_uniform_over_keys(n, vary):
    keys = 4000
    counts = np.zeros((n, n))
    for key in range(keys):
        indices = np.arange(n) + (key * n if vary == "epoch" else 0)
        counts[np.arange(n), sample_order(indices, n, 7 if vary == "epoch" else key)] += 1
    # Chi-square over the (n - 1)^2 free cells of the table, in standard deviations of its
    # distribution (mean d, variance 2d). Fixed keys, so this passes always or never.
    freedom = (n - 1) ** 2
    chi_square = ((counts - keys / n) ** 2 / (keys / n)).sum()
    assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 4
