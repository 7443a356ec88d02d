import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.keep import keep_greedy

N = 8
SETS = st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=N, max_size=N)


def keep(edges, eligible, rank):
    left, right = np.array([e[:2] for e in edges], dtype=np.int64).reshape(-1, 2).T
    jaccard = np.array([e[2] for e in edges], dtype=np.float32)
    matched, similarity = keep_greedy(
        len(rank), left.copy(), right.copy(), jaccard, np.array(eligible), np.array(rank)
    )
    return list(zip(matched.tolist(), similarity.tolist(), strict=True))


def edges_of(sets, threshold):
    """Real Jaccard edges, so that equal sets have equal neighbours."""
    found = []
    for i in range(len(sets)):
        for j in range(i):
            jaccard = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
            if jaccard >= threshold:
                found.append((j, i, jaccard))
    return found


def brute_force(sets, threshold, eligible, rank):
    """Drop a document where a kept one is similar; equal sets share the first one's fate."""
    kept, fate, out = [], {}, [(-1, 0.0)] * len(sets)
    for doc in sorted(range(len(sets)), key=lambda d: rank[d]):
        if not eligible[doc]:
            continue
        key = frozenset(sets[doc])
        if key in fate:
            out[doc] = fate[key]
            continue
        near = [
            (-len(sets[doc] & sets[k]) / len(sets[doc] | sets[k]), rank[k], k)
            for k in kept
            if len(sets[doc] & sets[k]) / len(sets[doc] | sets[k]) >= threshold
        ]
        if near:
            jaccard, _, match = min(near)
            out[doc] = fate[key] = (match, float(np.float32(-jaccard)))
        else:
            kept.append(doc)
            fate[key] = (doc, 1.0)
    return out


@given(
    SETS,
    st.lists(st.booleans(), min_size=N, max_size=N),
    st.permutations(range(N)),
    st.sampled_from([0.3, 0.5, 0.8]),
)
@settings(max_examples=300, deadline=None)
def test_greedy_by_rank_as_the_brute_force(sets, eligible, rank, threshold):
    found = keep(edges_of(sets, threshold), eligible, rank)
    assert found == brute_force(sets, threshold, eligible, rank)


@given(SETS, st.permutations(range(N)), st.permutations(range(N)), st.randoms())
@settings(deadline=None)
def test_the_numbering_decides_nothing(sets, rank, renumber, random):
    edges = edges_of(sets, 0.5)
    found = keep(edges, [True] * N, rank)
    moved = [(renumber[b], renumber[a], j) for a, b, j in random.sample(edges, len(edges))]
    new_rank = [0] * N
    for doc in range(N):
        new_rank[renumber[doc]] = rank[doc]
    again = keep(moved, [True] * N, new_rank)
    for doc in range(N):
        match, jaccard = found[doc]
        assert again[renumber[doc]] == (renumber[match] if match >= 0 else -1, jaccard)


def test_a_chain_keeps_both_ends():
    assert keep([(0, 1, 0.9), (1, 2, 0.9)], [True] * 3, [0, 1, 2]) == [
        (-1, 0),
        (0, np.float32(0.9)),
        (-1, 0),
    ]


def test_a_copy_of_a_dropped_document_goes_with_it():
    # 2 equals 1 and, as candidates collapse, has an edge to nothing else.
    found = keep([(0, 1, 0.875), (1, 2, 1.0)], [True] * 3, [0, 1, 2])
    assert found == [(-1, 0), (0, 0.875), (0, 0.875)]


def test_no_documents_and_no_edges():
    assert keep([], np.ones(0, dtype=bool), np.empty(0, dtype=np.int64)) == []
    assert keep([], [True, False], [1, 0]) == [(-1, 0), (-1, 0)]
