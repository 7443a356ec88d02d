"""A sidecar counts as long as its shard is what it says."""

from pathlib import Path

import msgspec
import pytest

from pipelines.commit import shard_path
from pipelines.sidecars import read_result, write_result
from shards.manifest import ShardEntry
from shards.tokens import shard_entry


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
