from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.candidates import GROUP_CAP
from dedup.components import connected_components
from dedup.config import NearConfig
from dedup.exact import content_hashes
from dedup.incremental import decide, empty_index, extend
from dedup.keep import keep_greedy
from dedup.near import near_duplicates
from shards.errors import DatasetError

CONFIG = NearConfig(threshold=0.6)


def contents(flat, texts):
    return content_hashes(*flat(texts))[:, :8].copy().view(np.uint64).ravel()


def extended(flat, index, texts, keys, eligible=None):
    return extend(index, *flat(texts), keys, contents(flat, texts), eligible)


def one_run(flat, texts, eligible, config=CONFIG):
    """`near_duplicates` and `keep_greedy` over texts in their order, as the curate job does it."""
    n = len(texts)
    rank = np.arange(n)
    edges = near_duplicates(*flat(texts), config, contents(flat, texts), rank)
    matched, jaccard = keep_greedy(n, edges.left, edges.right, edges.similarity, eligible, rank)
    return matched, jaccard, connected_components(n, edges.left, edges.right)


def assert_equal(found, expected):
    for mine, its in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, its)


@given(st.lists(st.integers(0, 200), max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_any_parts_make_the_index_and_the_decisions_of_one_run(flat, corpus, cuts, random):
    n = len(corpus)
    eligible = np.array([random.random() < 0.9 for _ in range(n)])
    keys = np.sort(np.array(random.sample(range(10**6), n), dtype=np.uint64))
    index = empty_index(CONFIG)
    edges = sorted({0, n, *(min(cut, n) for cut in cuts)})
    for start, end in pairwise(edges):
        part = random.sample(range(start, end), end - start)  # the order in a part is nothing
        texts = [corpus[i] for i in part]
        index = extended(flat, index, texts, keys[part], eligible[part])
    whole = extended(flat, empty_index(CONFIG), corpus, keys, eligible)
    assert_equal(index[1:], whole[1:])
    found = decide(index)
    assert_equal(found, one_run(flat, corpus, eligible))
    assert (found.matched >= 0).sum() > 20


def test_groups_that_grow_beyond_the_cap(flat):
    words = " ".join(f"w{i}" for i in range(60))
    texts = [f"{words} {i % 150}" for i in range(3 * GROUP_CAP)]
    keys = np.arange(len(texts), dtype=np.uint64)
    index = empty_index(CONFIG)
    for start, end in ((0, 100), (100, 140), (140, 384)):
        index = extended(flat, index, texts[start:end], keys[start:end])
    assert_equal(index[1:], extended(flat, empty_index(CONFIG), texts, keys)[1:])
    assert_equal(decide(index), one_run(flat, texts, np.ones(len(texts), dtype=bool)))


def test_old_decisions_stand(flat, corpus):
    keys = np.arange(len(corpus), dtype=np.uint64)
    old = extended(flat, empty_index(CONFIG), corpus[:80], keys[:80])
    grown = extended(flat, old, corpus[80:], keys[80:])
    assert_equal(decide(old), [column[:80] for column in decide(grown)])


def test_keys_must_come_later(flat):
    keys = np.array([5, 9], dtype=np.uint64)
    index = extended(flat, empty_index(CONFIG), ["a", "b"], keys)
    for new in ([9], [7], [10, 10]):
        with pytest.raises(DatasetError, match="not above"):
            extended(flat, index, ["c"] * len(new), np.array(new, dtype=np.uint64))


def test_nothing_added_to_nothing(flat):
    index = extended(flat, empty_index(CONFIG), [], np.empty(0, dtype=np.uint64))
    assert [column.size for column in decide(index)] == [0, 0, 0]
    assert index.bands.shape == (0, empty_index(CONFIG).bands.shape[1])
