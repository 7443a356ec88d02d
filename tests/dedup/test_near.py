import numpy as np
import pytest

from dedup.bands import choose_bands
from dedup.config import NearConfig
from dedup.keep import keep_greedy
from dedup.near import jaccard_of, near_duplicates

WORDS = [f"w{i}" for i in range(900)]
INNER = " ".join(WORDS[:300])
OUTER = " ".join([*WORDS[300:450], *WORDS[:300], *WORDS[450:600]])
OTHER = " ".join([*WORDS[600:750], *WORDS[:300], *WORDS[750:]])


def pairs(found):
    return list(zip(found.left.tolist(), found.right.tolist(), strict=True))


def containment_config(threshold, size_ratio):
    bands, rows = choose_bands(jaccard_of(threshold, size_ratio), 128)
    return NearConfig(threshold=threshold, bands=bands, rows=rows)


@pytest.mark.parametrize(("containment", "size_ratio"), [(1, 1), (1, 0.5), (0.8, 0.25), (0.1, 0.9)])
def test_jaccard_of_sets_of_those_sizes(containment, size_ratio):
    large, small = set(range(1000)), round(1000 * size_ratio)
    shared = round(small * containment)
    other = set(range(shared)) | set(range(1000, 1000 + small - shared))
    expected = len(large & other) / len(large | other)
    assert jaccard_of(containment, size_ratio) == pytest.approx(expected)


def test_containment_finds_a_text_inside_others(flat, oracle):
    batch = flat([INNER, OUTER, OTHER])
    assert pairs(near_duplicates(*batch, NearConfig(threshold=0.8))) == []
    found = near_duplicates(*batch, containment_config(0.8, 0.4), containment=True)
    assert pairs(found) == [(0, 1), (0, 2)]
    # All held, but not equal: the largest float32 below 1.
    assert found.jaccard.tolist() == [np.nextafter(np.float32(1), np.float32(0))] * 2
    assert oracle.shingle_set(INNER, 5) < oracle.shingle_set(OUTER, 5)


def test_two_texts_that_hold_a_third_are_not_taken_for_equal(flat):
    found = near_duplicates(
        *flat([INNER, OUTER, OTHER, INNER]), containment_config(0.8, 0.4), containment=True
    )
    edges = (found.left, found.right, found.jaccard)
    assert dict(zip(pairs(found), found.jaccard.tolist(), strict=True))[0, 3] == 1
    longest = keep_greedy(4, *edges, np.ones(4, dtype=bool), np.array([2, 0, 1, 3]))[0]
    assert longest.tolist() == [1, -1, -1, 1]


def test_containment_is_the_share_of_the_smaller_set(flat, oracle, corpus):
    found = near_duplicates(*flat(corpus), containment_config(0.6, 0.5), containment=True)
    for (a, b), value in zip(pairs(found), found.jaccard.tolist(), strict=True):
        x, y = (oracle.shingle_set(corpus[doc], 5) for doc in (a, b))
        assert value == pytest.approx(len(x & y) / min(len(x), len(y)), abs=1e-6)
        assert value >= np.float32(0.6)
    assert len(found.left) > 50
