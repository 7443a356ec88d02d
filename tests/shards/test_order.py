import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.order import permute, sample_order, windowed_order

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


@given(st.integers(1, 3000), seeds, st.integers(0, 2**30), st.integers(1, 500), st.integers(1, 20))
def test_each_windowed_epoch_is_a_permutation_that_keeps_to_its_windows(
    n, seed, epoch, chunk, chunks
):
    order = windowed_order(np.arange(n) + epoch * n, n, seed, chunk, chunks)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    for start in range(0, n, chunk * chunks):
        assert len(np.unique(order[start : start + chunk * chunks] // chunk)) <= chunks + 1


def test_without_windows_the_order_is_the_other():
    indices = np.arange(300)
    np.testing.assert_array_equal(
        windowed_order(indices, 100, 5, 0, 1), sample_order(indices, 100, 5)
    )


def test_windows_mix_chunks_and_samples_and_change_with_the_epoch():
    one, other = windowed_order(np.arange(2000), 1000, 1, 10, 5).reshape(2, -1)
    assert not np.array_equal(one, other)
    assert len(set((one[:50] // 10).tolist())) == 5
    assert (np.diff(one // 10) != 0).mean() > 0.6  # chunks of a window take turns
    assert abs(np.corrcoef(one // 10, np.arange(1000))[0, 1]) < 0.3  # and windows are all over


def test_the_windowed_order_is_part_of_the_format():
    # Golden values: if they change, bump WINDOW_VERSION.
    assert windowed_order(np.arange(24), 12, 0, 2, 2).tolist() == [
        9, 7, 8, 6, 10, 2, 11, 3, 1, 0, 5, 4,
        6, 7, 1, 0, 10, 9, 8, 11, 4, 5, 2, 3,
    ]  # fmt: skip
