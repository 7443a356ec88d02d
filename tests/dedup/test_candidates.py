from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.candidates import GROUP_CAP, NEIGHBOURS, PIVOTS, candidate_pairs, unique_pairs
from dedup.components import connected_components

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=25)


def pairs_of(rows, content=None):
    bands = np.array([band for band, _ in rows], dtype=np.uint64)
    docs = np.array([doc for _, doc in rows], dtype=np.int64)
    hashes = None if content is None else np.array([content[d] for d in docs], dtype=np.uint64)
    left, right = candidate_pairs(bands, docs, hashes)
    return list(zip(left.tolist(), right.tolist(), strict=True))


@given(ROWS)
@settings(deadline=None)
def test_all_pairs_that_share_a_band(rows):
    expected = {
        (a, b)
        for (x, a), (y, b) in combinations(sorted(rows, key=lambda row: row[1]), 2)
        if x == y != 0 and a != b
    }
    assert pairs_of(rows) == sorted(expected)


@given(ROWS, st.lists(st.integers(0, 3), min_size=10, max_size=10), st.randoms())
@settings(deadline=None)
def test_equal_contents_meet_only_their_first_and_order_is_nothing(rows, content, random):
    found = pairs_of(rows, content)
    expected = set()
    for band in range(1, 5):
        group = sorted({doc for b, doc in rows if b == band})
        first = {content[doc]: doc for doc in reversed(group)}
        expected |= {(first[content[doc]], doc) for doc in group if first[content[doc]] != doc}
        expected |= set(combinations(sorted(first.values()), 2))
    assert found == sorted(expected)
    shuffled = random.sample(rows, len(rows))
    assert pairs_of(shuffled, content) == found


def test_a_group_above_the_cap_is_held_together_by_a_linear_number_of_pairs():
    for n, full in ((GROUP_CAP, True), (10_000, False)):
        content = np.random.default_rng(0).permutation(n)
        found = pairs_of([(7, doc) for doc in range(n)], content)
        assert (len(found) == n * (n - 1) // 2) == full
        assert len(found) <= n * max(NEIGHBOURS + PIVOTS, GROUP_CAP / 2)
        left, right = np.array(found).T
        assert (connected_components(n, left.copy(), right.copy()) == 0).all()


def test_pairs_of_a_large_group_do_not_follow_the_numbering():
    n = 500
    rng = np.random.default_rng(1)
    content, renumber = rng.permutation(n), rng.permutation(n)
    found = pairs_of([(7, doc) for doc in range(n)], content)
    moved = np.empty(n, dtype=int)
    moved[renumber] = content
    again = pairs_of([(7, doc) for doc in range(n)], moved)
    assert again == sorted(tuple(sorted((renumber[a], renumber[b]))) for a, b in found)


def test_with_ranks_the_best_of_a_large_group_meets_everybody():
    n = 1000
    rank = np.random.default_rng(2).permutation(n)
    docs = np.arange(n)
    left, right = candidate_pairs(np.full(n, 7, dtype=np.uint64), docs, docs.view(np.uint64), rank)
    best = int(np.argmin(rank))
    met = set(left[right == best]) | set(right[left == best])
    assert met == set(range(n)) - {best}


def test_with_ranks_the_best_copy_stands_for_a_content():
    bands, docs = np.full(3, 7, dtype=np.uint64), np.arange(3)
    left, right = candidate_pairs(bands, docs, bands, np.array([2, 0, 1]))
    assert (left.tolist(), right.tolist()) == ([0, 1], [1, 2])


def test_a_hundred_thousand_identical_documents_make_a_star():
    n = 100_000
    bands = np.repeat(np.array([11, 12, 13], dtype=np.uint64), n)
    docs = np.tile(np.arange(n), 3)
    left, right = candidate_pairs(bands, docs, np.full(3 * n, 5, dtype=np.uint64))
    assert (left == 0).all()
    assert np.array_equal(right, np.arange(1, n))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_unique_pairs_of_small_and_of_large_numbers(pairs):
    for offset in (0, (1 << 32) - 2, 1 << 40):  # packed, and too large for that
        left, right = (np.array(pairs, dtype=np.int64).reshape(-1, 2) + offset).T
        found = zip(*unique_pairs(left, right), strict=True)
        assert [(a - offset, b - offset) for a, b in found] == sorted(set(pairs))


def test_no_rows():
    assert pairs_of([]) == []
