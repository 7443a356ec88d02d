"""Decisions against a plain-Python oracle, for any order of nodes and edges."""

from random import Random

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.curate.decisions import (
    DECISION_SCHEMA,
    EDGE,
    NODE,
    decide,
    decision_table,
    is_valid_split,
    largest,
    top_clusters,
)


def make_nodes(rows):
    return np.array(
        [(place, identity, 0, eligible, key, 0) for place, identity, eligible, key in rows], NODE
    )


def make_edges(rows):
    """Edges of (left, right, similarity, exact); the band is the similarity's first digit."""
    return np.array(
        [(a, b, j, j, -1 if exact else int(10 * j + 1e-6), exact) for a, b, j, exact in rows], EDGE
    )


def by_id(rows):
    return {row["doc_id"].rstrip(b"\0"): row for row in decision_table(rows).to_pylist()}


def test_exact_group_keeps_the_best_ranked_member():
    nodes = make_nodes([(0, b"a", True, 3.0), (1, b"b", True, 1.0), (2, b"c", True, 2.0)])
    edges = make_edges([(0, 1, 1.0, True), (0, 2, 1.0, True)])
    decided = by_id(decide(nodes, edges))
    assert decided[b"b"]["matched"] is None
    for dropped in (b"a", b"c"):
        assert decided[dropped]["matched"].rstrip(b"\0") == b"b"
        assert decided[dropped]["exact"]
        assert decided[dropped]["jaccard"] == 1.0


def test_copy_of_a_near_duplicate_points_at_the_document_that_is_kept():
    nodes = make_nodes([(0, b"a", True, 0.0), (1, b"b", True, 1.0), (2, b"c", True, 2.0)])
    edges = make_edges([(0, 1, 0.9, False), (1, 2, 1.0, True)])
    decided = by_id(decide(nodes, edges))
    assert decided[b"c"]["matched"].rstrip(b"\0") == b"a"
    assert not decided[b"c"]["exact"]
    assert decided[b"c"]["jaccard"] == decided[b"c"]["similarity"] == np.float32(0.9)
    assert (decided[b"c"]["band"], decided[b"c"]["size"]) == (9, 3)


def test_the_measure_decides_and_the_jaccard_is_evidence():
    # 2 lies inside 1 (Jaccard 0.3), 3 equals 2 in its n-grams, and has no edge to 1.
    nodes = make_nodes([(1, b"a", True, 0.0), (2, b"b", True, 1.0), (3, b"c", True, 2.0)])
    below = np.nextafter(np.float32(1), np.float32(0))
    edges = np.array([(1, 2, below, 0.3, 5, False), (2, 3, 1.0, 1.0, 0, False)], EDGE)
    decided = by_id(decide(nodes, edges))
    for name in (b"b", b"c"):
        row = decided[name]
        assert row["matched"].rstrip(b"\0") == b"a"
        assert (row["similarity"], row["jaccard"], row["band"]) == (below, np.float32(0.3), 5)


def test_filtered_document_never_keeps_another_out_but_joins_its_cluster():
    nodes = make_nodes([(0, b"a", False, 0.0), (1, b"b", True, 1.0)])
    decided = by_id(decide(nodes, make_edges([(0, 1, 0.95, False)])))
    assert decided[b"a"]["matched"] is None
    assert decided[b"b"]["matched"] is None
    assert decided[b"a"]["cluster"] == decided[b"b"]["cluster"] == b"a".ljust(16, b"\0")


def test_chain_drops_only_what_a_kept_document_verifies():
    nodes = make_nodes([(0, b"a", True, 0.0), (1, b"b", True, 1.0), (2, b"c", True, 2.0)])
    edges = make_edges([(0, 1, 0.8, False), (1, 2, 0.8, False)])
    decided = by_id(decide(nodes, edges))
    assert [decided[name]["matched"] is None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert len({row["cluster"] for row in decided.values()}) == 1


@st.composite
def graphs(draw):
    count = draw(st.integers(2, 9))
    content = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    keys = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    eligible = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    pairs = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.7, 0.8, 0.9])))
    )
    return content, keys, eligible, {tuple(sorted(pair[:2])): pair[2] for pair in pairs}


def naive(content, keys, eligible, similar):
    """Go through documents in rank order; keep one unless a kept one is equal or similar.

    One whose equal was dropped before is dropped for the same document, and not for a closer one
    that was kept in between: equal texts have equal evidence.
    """
    kept: list[int] = []
    matched = {}
    dropped_for = {}
    for node in sorted(range(len(content)), key=lambda i: (keys[i], i)):
        if not eligible[node]:
            continue
        if content[node] in dropped_for:
            matched[node] = dropped_for[content[node]]
            continue
        scores = {}
        for other in kept:
            if content[other] == content[node]:
                scores[other] = 1.0
            else:
                pair = tuple(sorted((content[other], content[node])))
                if pair in similar:
                    scores[other] = similar[pair]
        if scores:
            best = max(scores.values())
            matched[node] = next(other for other in kept if scores.get(other) == best)
            if content[matched[node]] != content[node]:
                dropped_for[content[node]] = matched[node]
        else:
            kept.append(node)
    return matched


CLOSER_IN_BETWEEN = (
    [0, 0, 1, 0, 2, 1, 0, 3],
    [1, 0, 1, 0, 0, 0, 1, 0],
    [True, False] * 4,
    {(0, 1): 0.8, (0, 2): 0.7},
)


@example(CLOSER_IN_BETWEEN, Random(1))
@given(graphs(), st.randoms(use_true_random=False))
def test_decisions_equal_the_naive_rule_for_any_order(graph, random):
    content, keys, eligible, similar = graph
    count = len(content)
    rows = [(100 - i, b"%02d" % i, eligible[i], keys[i]) for i in range(count)]
    edges = []
    for i in range(count):
        for j in range(i + 1, count):
            pair = tuple(sorted((content[i], content[j])))
            if content[i] == content[j]:
                edges.append((100 - i, 100 - j, 1.0, True))
            elif pair in similar:
                edges.append((100 - i, 100 - j, similar[pair], False))
    random.shuffle(rows)
    random.shuffle(edges)
    decided = by_id(decide(make_nodes(rows), make_edges(edges)))
    found = {
        int(name): int(row["matched"].rstrip(b"\0"))
        for name, row in decided.items()
        if row["matched"] is not None
    }
    assert found == naive(content, keys, eligible, similar)


def test_nothing_in_nothing_out():
    rows = decide(np.empty(0, NODE), np.empty(0, EDGE))
    table = decision_table(rows)
    assert (len(rows), table.num_rows, table.schema) == (0, 0, DECISION_SCHEMA)
    assert top_clusters(rows) == []


def test_top_clusters_go_by_size_then_id_and_those_of_parts_are_those_of_the_whole():
    members = [(head, head + i) for head in range(100, 500, 10) for i in range(1 + head // 10 % 3)]
    nodes = make_nodes([(own, b"%03d" % own, True, 0.0) for _, own in members])
    edges = make_edges([(head, own, 0.9, False) for head, own in members if head != own])
    found = top_clusters(decide(nodes, edges))
    assert [item.size for item in found] == [3] * 13 + [2] * 12
    assert [bytes.fromhex(name)[:4] for name in found[0].members] == [b"110\0", b"111\0", b"112\0"]
    assert found[0].cluster == found[0].members[0]
    assert [item.cluster for item in found[:13]] == sorted(item.cluster for item in found[:13])
    first, left = nodes["place"] < 300, edges["left"] < 300
    parts = [decide(nodes[first], edges[left]), decide(nodes[~first], edges[~left])]
    assert largest([item for part in parts for item in top_clusters(part)]) == found


def test_valid_split_takes_about_its_fraction_and_depends_on_the_salt():
    clusters = [bytes([i % 256, i // 256]) * 8 for i in range(4000)]
    first = is_valid_split(clusters, 0.1, "a")
    assert 0.07 < first.mean() < 0.13
    assert (first != is_valid_split(clusters, 0.1, "b")).any()
    assert not is_valid_split(clusters, 0.0, "a").any()
