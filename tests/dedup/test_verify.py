import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.shingles import shingle_sets
from dedup.verify import ratio, verify_pairs

SETS = st.lists(st.sets(st.integers(0, 12), max_size=9), min_size=2, max_size=5)


def verify(sets, pairs, **options):
    flat = np.array([x for one in sets for x in sorted(one)], dtype=np.uint64)
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.int64)
    left, right = np.array(pairs, dtype=np.int64).T.copy()
    return verify_pairs(flat, offsets, left, right, **options).tolist()


@given(SETS)
def test_both_measures_are_those_of_python_sets(sets):
    pairs = [(i, j) for i in range(len(sets)) for j in range(len(sets))]
    jaccard = [len(sets[i] & sets[j]) / max(len(sets[i] | sets[j]), 1) for i, j in pairs]
    smaller = [max(min(len(sets[i]), len(sets[j])), 1) for i, j in pairs]
    held = [len(sets[i] & sets[j]) / size for (i, j), size in zip(pairs, smaller, strict=True)]
    assert verify(sets, pairs) == np.float32(jaccard).tolist()
    assert verify(sets, pairs, containment=True) == np.float32(held).tolist()


def test_one_means_equal_even_for_huge_sets():
    n = 1 << 26
    assert np.float32(n / (n + 1)) == 1  # float32 cannot tell them apart
    assert ratio(n, n + 1) < 1
    assert ratio(n, n) == 1
    assert ratio(0, 0) == 0


def test_jaccard_of_texts_is_the_oracles(flat, oracle, corpus):
    texts = corpus[:40]
    sets, offsets = shingle_sets(*flat(texts), 3, "word")
    left, right = np.triu_indices(len(texts), 1)
    found = verify_pairs(sets, offsets, left, right)
    expected = [oracle.jaccard(texts[i], texts[j], 3) for i, j in zip(left, right, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-7)
