import numpy as np
import pytest
from datasketch.lsh import _optimal_param
from hypothesis import given
from hypothesis import strategies as st

from dedup.bands import (
    NO_BAND,
    area_bands,
    band_hashes,
    banding,
    candidate_probability,
    choose_bands,
)
from dedup.config import NearConfig, jaccard_of
from dedup.minhash import EMPTY


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_chosen_bands_find_pairs_at_the_threshold(threshold, num_perm):
    bands, rows = choose_bands(threshold, num_perm)
    assert bands * rows <= num_perm
    assert candidate_probability(threshold, bands, rows) >= 0.9895
    if rows < num_perm:  # and one more row a band would not
        wider = candidate_probability(threshold, num_perm // (rows + 1), rows + 1)
        assert wider < 0.9895


def test_the_documented_choice_against_datasketchs_optimiser():
    assert choose_bands(0.8, 128) == (21, 6)
    assert _optimal_param(0.8, 128, 0.5, 0.5) == (9, 13)
    assert 1 - candidate_probability(0.8, 9, 13) == pytest.approx(0.60, abs=0.01)
    assert candidate_probability(0.5, 21, 6) == pytest.approx(0.28, abs=0.01)


@pytest.mark.parametrize("threshold", [0.05, 0.35, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("num_perm", [1, 37, 128])
def test_the_area_choice_is_datasketchs(threshold, num_perm):
    assert area_bands(threshold, num_perm) == _optimal_param(threshold, num_perm, 0.5, 0.5)


def test_a_threshold_near_zero_gets_single_rows():
    assert choose_bands(0.001, 16) == (16, 1)


@given(st.floats(0.001, 1), st.integers(1, 300))
def test_what_the_config_accepts_is_what_some_banding_finds(threshold, num_perm):
    bands, rows = choose_bands(threshold, num_perm)
    found = round(candidate_probability(threshold, bands, rows), 3) >= 0.99
    try:
        NearConfig(threshold=threshold, num_perm=num_perm)
    except ValueError:
        assert not found
    else:
        assert found


def test_given_bands_win():
    assert banding(NearConfig(bands=4, rows=3)) == (4, 3)
    assert banding(NearConfig(threshold=0.7)) == choose_bands(0.7, 128)
    assert banding(NearConfig(optimise="area")) == (9, 13)


def test_bands_for_containment_follow_the_jaccard_of_the_most_unequal_pair():
    config = NearConfig(threshold=0.8, measure="containment", size_ratio=0.5)
    assert banding(config) == choose_bands(jaccard_of(0.8, 0.5), 128) == (64, 2)


def test_hashes_are_equal_where_the_rows_of_the_same_band_are():
    signatures = np.array([[1, 2, 1, 2, 9], [1, 2, 3, 4, 9], [7, 2, 1, 2, 0]], dtype=np.uint32)
    hashes = band_hashes(signatures, 2, 2)
    assert hashes[0, 0] == hashes[1, 0] != hashes[2, 0]
    assert hashes[0, 1] == hashes[2, 1] != hashes[1, 1]
    assert hashes[0, 0] != hashes[0, 1]  # equal rows, but of another band


def test_only_documents_without_elements_have_no_band():
    signatures = np.full((2, 4), EMPTY, dtype=np.uint32)
    signatures[1, 3] = 5
    hashes = band_hashes(signatures, 2, 2)
    assert (hashes[0] == NO_BAND).all()
    assert (hashes[1] != NO_BAND).all()


def test_more_rows_than_the_signature_has():
    with pytest.raises(ValueError, match=r"3 bands of 2 rows need 6 permutations, .* have 5"):
        band_hashes(np.zeros((1, 5), dtype=np.uint32), 3, 2)
