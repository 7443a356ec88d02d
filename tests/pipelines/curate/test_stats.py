"""Histograms put every value somewhere, and merge by addition."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.stats import BPB_EDGES, histogram, languages, merge_stats


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


def test_tables_merge_by_key():
    one = languages(pa.table({"lang": ["en", "de", "en"], "bytes": [1, 2, 3]}))
    other = languages(pa.table({"lang": ["fr", "de"], "bytes": [5, 7]}))
    assert merge_stats([one, {}, other]) == {
        "de": {"documents": 2, "bytes": 9},
        "en": {"documents": 2, "bytes": 4},
        "fr": {"documents": 1, "bytes": 5},
    }
