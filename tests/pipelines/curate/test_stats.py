"""Histograms put every value somewhere, and merge by addition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.stats import BPB_EDGES, histogram, merge_stats


@given(st.lists(st.floats(0, 1e9)))
def test_every_value_is_counted_once(values):
    assert sum(histogram(np.array(values), BPB_EDGES)) == len(values)


def test_edges_are_half_open_and_outliers_go_to_the_ends():
    assert histogram(np.array([0.0, 1.0, 2.0, 99.0]), [1.0, 2.0, 4.0]) == [2, 2]


def test_parts_merge_by_addition():
    part = {"histograms": {"x": {"kept": [1, 2]}}, "bytes": {"kept": 3}}
    assert merge_stats([part, part, part]) == {
        "histograms": {"x": {"kept": [3, 6]}},
        "bytes": {"kept": 9},
    }
