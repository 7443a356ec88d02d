"""Plans follow from content and recipe, not from names, order or how the job is run."""

import pytest

from pipelines.curate.plan import make_plan, number_copies, shard_count
from pipelines.readers import Range
from pipelines.recipe import curate_recipe


def hashed(folder, *names):
    found = []
    for name in names:
        path = folder / name
        path.write_bytes(b'{"text": "a"}\n' * 100)
        found.append((str(path), path.stat().st_size, f"{len(name):032x}"))
    return found


def recipe(**tables):
    return curate_recipe({"input": {"paths": ["x"]}, **tables})


def test_equal_files_are_numbered_and_inputs_sorted_by_hash():
    inputs = number_copies([("b", 1, "ff"), ("a", 2, "aa"), ("c", 1, "ff")])
    assert [(item.path, item.hash, item.copy, item.order) for item in inputs] == [
        ("a", "aa", 0, 1),
        ("b", "ff", 0, 0),
        ("c", "ff", 1, 2),
    ]


@pytest.mark.parametrize(
    ("format_", "compression", "size", "shards"),
    [
        ("jsonl", "none", 0, 1),
        ("jsonl", "none", 1000, 1),
        ("jsonl", "none", 1001, 2),
        ("jsonl", "zstd", 1001, 5),
        ("parquet", "none", 1001, 5),
    ],
)
def test_shards_follow_from_estimated_text(format_, compression, size, shards):
    span = Range("", format_, compression, 0, size)
    assert shard_count([span], [size], 1000) == shards


def test_shards_do_not_follow_from_a_file_s_name(tmp_path):
    lines = recipe(input={"paths": ["x"], "format": "jsonl"}, output={"shard_bytes": 1 << 16})
    counts = set()
    for name in ("a.jsonl", "A.JSONL", "a", "a.txt"):
        path = tmp_path / name
        path.write_bytes(b'{"text": "a"}\n' * 10_000)
        counts.add(make_plan([(str(path), path.stat().st_size, "aa")], lines, 10**6).shards)
    assert counts == {3}


def test_keys_do_not_depend_on_names_order_or_range_size(tmp_path):
    files = hashed(tmp_path, "a.jsonl", "bb.jsonl")
    first = make_plan(files, recipe(), 10**6)
    other = make_plan(files[::-1], recipe(input={"paths": ["elsewhere"]}), 100)
    assert (first.stage_key, first.scan_key) == (other.stage_key, other.scan_key)
    assert len(other.ranges) > len(first.ranges)


@pytest.mark.parametrize(
    ("tables", "scan_again"),
    [
        ({"filters": {"presets": ["gopher"]}}, False),
        ({"dedup": {"near": {"keep": "best:bytes"}}}, False),
        ({"split": {"valid_fraction": 0.1}}, False),
        ({"dedup": {"near": {"ngram": 4}}}, True),
        ({"input": {"paths": ["x"], "text_field": "body"}}, True),
    ],
)
def test_a_changed_recipe_changes_the_stage_key_and_rescans_only_if_it_must(
    tmp_path, tables, scan_again
):
    files = hashed(tmp_path, "a.jsonl")
    first = make_plan(files, recipe(), 10**6)
    other = make_plan(files, recipe(**tables), 10**6)
    assert first.stage_key != other.stage_key
    assert (first.scan_key != other.scan_key) == scan_again


def test_earliest_policy_makes_the_order_of_files_part_of_the_key(tmp_path):
    files = hashed(tmp_path, "a.jsonl", "bb.jsonl")
    earliest = recipe(dedup={"near": {"keep": "earliest"}})
    first, other = (make_plan(order, earliest, 10**6) for order in (files, files[::-1]))
    assert first.stage_key != other.stage_key
    assert first.scan_key == other.scan_key
