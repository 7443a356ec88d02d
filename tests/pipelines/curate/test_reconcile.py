"""Counts that do not add up fail with the source and the numbers."""

import pytest

from pipelines.curate.reconcile import add_counts, reconcile
from shards.errors import ReconcileError
from shards.manifest import Counts


def counts(read, kept, drops):
    dropped = sum(drops.values())
    return Counts(read=read, kept=kept, dropped=dropped, bytes_read=read, drops=drops)


def test_counts_add_up_per_source_and_reason():
    total = add_counts(
        [{"a": counts(3, 1, {"x": 2})}, {"a": counts(2, 1, {"y": 1}), "b": counts(1, 1, {})}]
    )
    assert total["a"] == counts(5, 2, {"x": 2, "y": 1})
    assert reconcile(total, total) == counts(6, 3, {"x": 2, "y": 1})


@pytest.mark.parametrize(
    ("scanned", "written", "words"),
    [
        ({"a": counts(3, 3, {})}, {"a": counts(2, 2, {})}, "'a': 3 documents .* 2"),
        ({"a": counts(3, 3, {})}, {}, "'a': 3 documents .* 0"),
        ({}, {"b": counts(1, 1, {})}, "'b': 0 documents"),
        ({"a": counts(3, 0, {})}, {"a": counts(3, 1, {"x": 1})}, r"3 read ≠ 1 kept \+ 1 dropped"),
    ],
)
def test_a_mismatch_names_source_and_numbers(scanned, written, words):
    with pytest.raises(ReconcileError, match=words):
        reconcile(scanned, written)


def test_adding_does_not_change_its_parts():
    part = {"a": counts(1, 0, {"x": 1})}
    add_counts([part, part])
    assert part == {"a": counts(1, 0, {"x": 1})}
