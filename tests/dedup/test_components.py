import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dedup.components import connected_components, star_components

EDGES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14)


def ends(edges):
    left, right = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return left.copy(), right.copy()


@given(EDGES, st.randoms())
def test_both_ways_give_the_oracles_components(oracle, edges, random):
    expected = oracle.components(12, edges)
    assert connected_components(12, *ends(edges)).tolist() == expected
    assert star_components(12, *ends(edges)).tolist() == expected
    turned = [edge[::-1] for edge in random.sample(edges, len(edges))]
    assert connected_components(12, *ends(turned)).tolist() == expected


def test_a_long_chain_in_a_bad_order():
    n = 3000
    chain = np.random.default_rng(0).permutation(n)
    edges = chain[:-1].copy(), chain[1:].copy()
    assert (connected_components(n, *edges) == 0).all()
    assert (star_components(n, *edges) == 0).all()
