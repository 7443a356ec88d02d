"""The keep policies as numbers that sort."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.keep import keep_columns, keep_order, pair_rank, policy_signal
from pipelines.recipe import curate_recipe
from shards.errors import RecipeError


def order(policy, file_order=0, **columns):
    recipe = curate_recipe({"input": {"paths": ["x"]}, "dedup": {"near": {"keep": policy}}})
    columns.setdefault("position", list(range(len(next(iter(columns.values()))))))
    return keep_order(pa.table(columns), recipe, file_order)


@pytest.mark.parametrize(
    ("policy", "best"), [("longest", 1), ("best:zstd_bpb", 2), ("best:-zstd_bpb", 0)]
)
def test_the_policy_decides_who_is_best(policy, best):
    _, key, _ = order(policy, bytes=[5, 9, 7], zstd_bpb=[1.0, 2.0, 3.0])
    assert int(np.argmin(key)) == best


def test_earliest_follows_the_file_and_then_the_position():
    _, first, tie = order("earliest", 1, bytes=[5, 9], position=[70, 30])
    assert first.tolist() == [1.0, 1.0]
    assert tie.tolist() == [70, 30]


def test_sources_come_by_priority_and_then_the_longest():
    near = {"keep": "sources", "sources": ["wiki", "books"]}
    recipe = curate_recipe({"input": {"paths": ["x"]}, "dedup": {"near": near}})
    columns = {"bytes": [9, 5, 7, 8, 6], "source": ["web", "wiki", "wiki", "books", "?"]}
    table = pa.table({**columns, "position": list(range(5))})
    ranks = pair_rank(*keep_order(table, recipe, 0), "sources")
    assert np.argsort(ranks).tolist() == [2, 1, 3, 0, 4]


def test_an_unknown_signal_is_an_error_with_a_suggestion():
    with pytest.raises(RecipeError, match=r"best:zstd_bp.*did you mean 'zstd_bpb'"):
        policy_signal("best:zstd_bp")


def test_columns_are_those_of_policy_and_rules_once():
    recipe = curate_recipe(
        {
            "input": {"paths": ["x"]},
            "filters": {"bounds": {"bytes": {"min": 10}, "chars": {"min": 1}}},
        }
    )
    assert keep_columns(recipe) == ["position", "bytes", "chars"]


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(-1e9, 1e9, width=32), st.just(0)), min_size=2, max_size=9
    )
)
def test_pair_rank_sorts_like_eligibility_and_key(rows):
    eligible, key, tie = (np.array(column) for column in zip(*rows, strict=True))
    rank = pair_rank(eligible, key.astype(np.float64), tie.astype(np.int64), "longest")
    wanted = [(not row[0], row[1]) for row in rows]
    for i, first in enumerate(wanted):
        for j, second in enumerate(wanted):
            if first < second:
                assert rank[i] < rank[j] or key[i] == key[j]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 1 << 40)), min_size=2, max_size=9))
def test_pair_rank_sorts_like_file_and_position(rows):
    key, tie = (np.array(column) for column in zip(*rows, strict=True))
    eligible = np.ones(len(rows), bool)
    rank = pair_rank(eligible, key.astype(np.float64), tie.astype(np.int64), "earliest")
    assert np.argsort(rank, kind="stable").tolist() == sorted(
        range(len(rows)), key=lambda i: rows[i]
    )


def test_ranks_of_two_fragments_of_the_same_file_compare():
    """A fragment that holds the file's first record only has nothing but zeros to rank by."""
    both = [np.array([True]), np.array([1.0])]
    first = pair_rank(*both, np.array([0]), "earliest")
    later = pair_rank(*both, np.array([70]), "earliest")
    assert first < later
