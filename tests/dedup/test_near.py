import random

import numpy as np
import pytest

from dedup.candidates import GROUP_CAP, candidate_pairs
from dedup.config import NearConfig, jaccard_of
from dedup.exact import content_hashes
from dedup.keep import keep_greedy
from dedup.near import near_duplicates

WORDS = [f"w{i}" for i in range(900)]
INNER = " ".join(WORDS[:300])
OUTER = " ".join([*WORDS[300:450], *WORDS[:300], *WORDS[450:600]])
OTHER = " ".join([*WORDS[600:750], *WORDS[:300], *WORDS[750:]])


def pairs(found):
    return list(zip(found.left.tolist(), found.right.tolist(), strict=True))


def containment_config(threshold, size_ratio):
    return NearConfig(threshold=threshold, measure="containment", size_ratio=size_ratio)


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
    found = near_duplicates(*batch, containment_config(0.8, 0.4))
    assert pairs(found) == [(0, 1), (0, 2)]
    # All held, but not equal: the largest float32 below 1.
    assert found.similarity.tolist() == [np.nextafter(np.float32(1), np.float32(0))] * 2
    assert oracle.shingle_set(INNER, 5) < oracle.shingle_set(OUTER, 5)


def test_two_texts_that_hold_a_third_are_not_taken_for_equal(flat):
    found = near_duplicates(*flat([INNER, OUTER, OTHER, INNER]), containment_config(0.8, 0.4))
    edges = (found.left, found.right, found.similarity)
    assert dict(zip(pairs(found), found.similarity.tolist(), strict=True))[0, 3] == 1
    longest = keep_greedy(4, *edges, np.ones(4, dtype=bool), np.array([2, 0, 1, 3]))[0]
    assert longest.tolist() == [1, -1, -1, 1]


def test_containment_is_the_share_of_the_smaller_set(flat, oracle, corpus):
    found = near_duplicates(*flat(corpus), containment_config(0.6, 0.5))
    for (a, b), value in zip(pairs(found), found.similarity.tolist(), strict=True):
        x, y = (oracle.shingle_set(corpus[doc], 5) for doc in (a, b))
        assert value == pytest.approx(len(x & y) / min(len(x), len(y)), abs=1e-6)
        assert value >= np.float32(0.6)
    assert len(found.left) > 50


def templates(n):
    """Pages of one template and one length in bytes, which differ in two of their 60 words."""
    rng = random.Random(3)
    pages = []
    for _ in range(n):
        words = [f"word{i:02d}" for i in range(60)]
        for place in rng.sample(range(60), 2):
            words[place] = f"z{rng.randrange(10**5):05d}"
        pages.append(" ".join(words))
    return pages


def test_tied_ranks_in_large_groups_do_not_follow_the_numbering(flat):
    # By `keep = "longest"` all of these rank the same, and a bucket numbers them by fragment.
    pages = templates(3000)
    n, config = len(pages), NearConfig(threshold=0.7)
    outcomes = []
    for seed in range(3):
        order = random.Random(seed).sample(range(n), n)
        batch = flat([pages[i] for i in order])
        content = content_hashes(*batch)[:, :8].copy().view(np.uint64).ravel()
        rank = np.zeros(n, dtype=np.int64)
        edges = near_duplicates(*batch, config, content, rank)
        full = np.argsort(np.argsort(content))
        matched, _ = keep_greedy(n, *edges[:3], np.ones(n, dtype=bool), full)
        candidates = candidate_pairs(np.full(n, 7, dtype=np.uint64), np.arange(n), content, rank)
        outcomes.append(
            (
                edges.n_candidates,
                {frozenset((order[a], order[b])) for a, b in zip(*candidates, strict=True)},
                {frozenset((order[a], order[b])) for a, b in pairs(edges)},
                {order[doc]: order[matched[doc]] for doc in np.flatnonzero(matched >= 0)},
            )
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0] > n * GROUP_CAP / 2  # the groups were above the cap
    assert len(outcomes[0][3]) > 500
