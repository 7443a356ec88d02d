"""Candidate pairs of one bucket."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.curate.pairs import (
    PAIR,
    ROW,
    bucket_pairs,
    pairs_path,
    pairs_stand,
    read_pairs,
    write_pairs,
)
from pipelines.curate.resolved import ResolveContext
from pipelines.curate.scan import ScanContext
from shards.errors import CorruptError
from tests.pipelines.damage import every_damage


def make_rows(*rows):
    """Rows of (hash, content, place); the rank is the place."""
    return np.array([(*row, row[2]) for row in rows], dtype=ROW)


def as_set(pairs):
    return {(int(pair["left"]), int(pair["right"])) for pair in pairs}


def test_equal_contents_become_a_star_around_the_smallest_place():
    rows = make_rows((1, 5, 30), (1, 5, 10), (1, 5, 20), (1, 6, 40), (2, 5, 50))
    assert as_set(bucket_pairs(rows, exact=True)) == {(10, 20), (10, 30)}


def test_a_hundred_thousand_copies_give_linear_pairs():
    rows = np.zeros(100_000, dtype=ROW)
    rows["hash"] = 7
    rows["place"] = np.arange(100_000)
    assert len(bucket_pairs(rows, exact=True)) == 99_999
    assert len(bucket_pairs(rows, exact=False)) == 99_999


def test_near_rows_pair_within_a_band_hash_only():
    rows = make_rows((1, 5, 1), (1, 6, 2), (2, 7, 3), (2, 8, 1))
    assert as_set(bucket_pairs(rows, exact=False)) == {(1, 2), (1, 3)}


def test_an_empty_bucket_has_no_pairs():
    for exact in (True, False):
        assert len(bucket_pairs(make_rows(), exact=exact)) == 0


@pytest.mark.parametrize(
    ("rows", "buckets", "places"),
    [(0, 64, 64), (64 * 10, 64, 64), (64 * 10 + 1, 128, 128), (10**6, 1 << 17, 2048)],
)
def test_buckets_grow_with_the_rows_and_partitions_only_so_far(rows, buckets, places):
    context = ResolveContext(None, "", rows, "", bucket_rows=10)
    assert (context.buckets, context.places) == (buckets, places)


def test_pairs_come_back_by_partition_and_any_damage_is_found(tmp_path):
    scan = ScanContext(None, None, 0, 0, str(tmp_path), "")
    context = ResolveContext(scan, str(tmp_path), 10, "", bucket_rows=1 << 20)
    pairs = np.zeros(3, dtype=PAIR)
    pairs["left"], pairs["right"] = [7 << 32, 2 << 32, 7 << 32], [8 << 32, 9 << 32, 9 << 32]
    write_pairs(context, 1, 10, pairs)
    assert pairs_stand(context, 1)
    assert not pairs_stand(context, 2)
    parts = [read_pairs(context, 1, partition) for partition in range(context.places)]
    assert {part[1:] for part in parts} == {(10, 3)}
    assert {n: len(part[0]) for n, part in enumerate(parts) if len(part[0])} == {2: 1, 7: 2}
    assert set(np.concatenate([part[0] for part in parts]).tolist()) == set(pairs.tolist())
    path = Path(pairs_path(context, 1))
    good, damage = path.read_bytes(), 0
    for bad in list(every_damage(good))[::97]:
        path.write_bytes(bad)
        assert not pairs_stand(context, 1)
        for partition, before in enumerate(parts):
            try:
                found = read_pairs(context, 1, partition)
            except CorruptError:
                damage += 1
            else:
                assert found[1:] == before[1:]
                assert np.array_equal(found[0], before[0])
    assert damage > 100
