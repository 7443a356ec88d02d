"""Disks that are full or read-only: a clear error, nothing lost, and the job resumes."""

import errno
import os

import pytest

from pipelines import files
from pipelines.beam import beam
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import PlatformError
from shards.manifest import MANIFEST


def run(out, corpus):
    tables = {"filters": {"presets": ["gopher"]}, "output": {"shard_bytes": 1 << 16}}
    recipe = curate_recipe({"input": {"paths": [str(corpus / "*")]}, **tables})
    return curate(recipe, str(out), JobOptions(range_bytes=5_000, quiet=True))[0].dataset_id


class Disk:
    """Beam's local files, of which only so many can be written until there is more room."""

    def __init__(self, monkeypatch, code):
        self.room = 0
        real = beam.io.filesystems.FileSystems.create

        def create(path, **options):
            self.room -= 1
            if self.room < 0:
                raise OSError(code, os.strerror(code), path)
            return real(path, **options)

        monkeypatch.setattr(beam.io.filesystems.FileSystems, "create", create)


def test_a_full_disk_stops_the_job_at_any_file_and_it_goes_on_when_there_is_room(
    corpus, tmp_path, monkeypatch
):
    expected = run(tmp_path / "whole", corpus)
    disk = Disk(monkeypatch, errno.ENOSPC)
    stops = 0
    while stops < 50:
        disk.room = 60
        try:
            assert run(tmp_path / "out", corpus) == expected
        except PlatformError as error:
            said = str(error)
        else:
            break
        assert "cannot be written: No space left on device; when that is mended" in said
        assert not (tmp_path / "out" / MANIFEST).exists()
        assert not [path for path in tmp_path.rglob("*") if ".partial-" in path.name]
        stops += 1
    assert 2 < stops < 50


def test_a_read_only_output_is_said_at_once(corpus, tmp_path, monkeypatch):
    Disk(monkeypatch, errno.EROFS)
    with pytest.raises(PlatformError, match="cannot be written: Read-only file system"):
        run(tmp_path / "out", corpus)


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    files.write_atomic(str(tmp_path / "file"), b"before")
    Disk(monkeypatch, errno.EIO)
    with pytest.raises(PlatformError, match="Input/output error"):
        files.write_atomic(str(tmp_path / "file"), b"after")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"before"}
