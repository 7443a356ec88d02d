"""A file is not read again only where its size, time and inode say that it is the one hashed."""

import json
import os

import pytest

from pipelines.curate import inputs
from pipelines.curate.hash_cache import (
    HashedFile,
    committed_records,
    hashed_file,
    read_record,
    stamp,
    still_holds,
)
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions

OLD = 1_600_000_000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "some words"}\n')
    os.utime(path, (OLD, OLD))
    return path


def test_a_record_holds_until_size_time_or_inode_change(source):
    record = hashed_file("00", source.stat().st_size, stamp(str(source)))
    assert still_holds(record, stamp(str(source)))
    os.utime(source, (OLD + 1, OLD + 1))
    assert not still_holds(record, stamp(str(source)))
    os.utime(source, (OLD, OLD))
    assert still_holds(record, stamp(str(source)))
    other = source.with_name("other")
    other.write_bytes(source.read_bytes())
    os.utime(other, (OLD, OLD))
    other.replace(source)
    assert not still_holds(record, stamp(str(source)))


def test_a_file_written_just_before_it_was_hashed_is_read_again(source):
    os.utime(source)
    record = hashed_file("00", source.stat().st_size, stamp(str(source)))
    assert not still_holds(record, stamp(str(source)))


def test_what_has_no_stamp_never_holds(tmp_path):
    assert stamp("gs://bucket/in.jsonl") == stamp(str(tmp_path / "gone")) == (0, 0, 0)
    assert not still_holds(HashedFile("00", 0, 0, 0, OLD * 10**9), (0, 0, 0))


def test_records_of_another_version_count_as_none(tmp_path):
    path = tmp_path / "record"
    assert read_record(str(path)) is None
    path.write_text("5d41402abc4b2a76b9719d911017c592")
    assert read_record(str(path)) is None
    assert committed_records({"hashed": {"a": {"hash": "x"}}}) == {}
    assert committed_records({}) == {}


def test_a_second_run_reads_only_the_inputs_that_look_new(source, tmp_path, monkeypatch):
    read = []
    real = inputs._hash
    monkeypatch.setattr(inputs, "_hash", lambda todo, *more: read.extend(todo) or real(todo, *more))
    recipe = curate_recipe({"input": {"paths": [str(source)]}})

    def run(**options):
        read.clear()
        manifest, ran = curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True, **options))
        return manifest, ran, bool(read)

    first, ran, _ = run()
    assert ran
    assert run()[1:] == (False, False)
    assert run(rehash=True)[1:] == (False, True)
    os.utime(source, (OLD + 1, OLD + 1))
    assert run()[1:] == (False, True)
    source.write_text('{"text": "other words"}\n')
    changed, ran, was_read = run()
    assert ran
    assert was_read
    assert changed.dataset_id != first.dataset_id
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["run"]["hashed"]
    assert facts[str(source)]["bytes"] == source.stat().st_size
