"""A sidecar counts as long as it and its shard are what was written."""

import json
from pathlib import Path

import msgspec
import pytest

from pipelines.commit import shard_path
from pipelines.sidecars import read_result, read_sidecar, write_result, write_sidecar
from shards.manifest import ShardEntry
from shards.tokens import shard_entry
from tests.pipelines.damage import every_damage


class Where(msgspec.Struct):
    out: str
    results: str


class Result(msgspec.Struct):
    entry: ShardEntry


@pytest.mark.parametrize("verify", [True, False])
def test_a_finished_shard_is_found_until_it_changes(tmp_path, verify):
    where = Where(str(tmp_path / "out"), str(tmp_path / "work"))
    entry = shard_entry("tokens/00003-of-00004.arrow", b"shard", documents=1, tokens=2)
    (tmp_path / "out" / "tokens").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    assert read_result(where, 3, Result, verify=verify) is None
    write_result(where, 3, Result(entry))
    assert read_result(where, 3, Result, verify=verify) is None  # no shard yet
    for data, whole in ((b"shard", True), (b"sharp", not verify), (b"shar", False)):
        Path(shard_path(where.out, entry)).write_bytes(data)
        found = read_result(where, 3, Result, verify=verify)
        assert found == (Result(entry) if whole else None)
    assert read_result(where, 2, Result, verify=verify) is None


class Facts(msgspec.Struct):
    rows: int
    names: list[str]


def test_a_sidecar_is_json_and_none_after_any_damage(tmp_path):
    path = tmp_path / "facts.json"
    assert read_sidecar(str(path), Facts) is None
    facts = Facts(3, ["naïve", '"'])
    write_sidecar(str(path), facts)
    assert read_sidecar(str(path), Facts) == facts
    good = path.read_bytes()
    assert list(json.loads(good)) == ["check", "rows", "names"]
    for bad in every_damage(good):
        path.write_bytes(bad)
        assert read_sidecar(str(path), Facts) is None


def test_a_sidecar_in_the_place_of_another_is_none_and_its_folder_may_move(tmp_path):
    one, other = (tmp_path / "work" / "done" / name for name in ("1.json", "2.json"))
    write_sidecar(str(one), Where("a", "b"))
    other.write_bytes(one.read_bytes())
    assert read_sidecar(str(other), Where) is None
    moved = (tmp_path / "work").rename(tmp_path / "moved")
    assert read_sidecar(str(moved / "done" / "1.json"), Where) == Where("a", "b")


def test_a_sidecar_of_another_version_is_none(tmp_path):
    write_sidecar(str(tmp_path / "a"), Facts(3, []))
    assert read_sidecar(str(tmp_path / "a"), Result) is None
