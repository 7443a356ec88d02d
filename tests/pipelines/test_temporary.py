"""Temporary folders of jobs: those of killed jobs go, those of running ones and others' stay."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.beam import beam
from pipelines.commit import WORK, collect_garbage, own_output
from pipelines.temporary import own_temporary, remove_stale
from shards.manifest import MANIFEST

JOB = """
import sys, time
from pipelines.commit import own_output
from pipelines.beam import beam
with own_output(sys.argv[1], "documents", keep_work=False):
    beam.Pipeline()
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temp(tmp_path, monkeypatch):
    """A temporary folder of our own."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_beam_leaves_is_gone_with_the_job_and_the_default_is_as_before(temp, tmp_path):
    with own_output(str(tmp_path / "out"), "documents", keep_work=False):
        made = Path(beam.Pipeline().local_tempdir)
        assert made.parent.parent == temp
    assert names(temp) == []
    assert tempfile.gettempdir() == str(temp)


def test_a_killed_job_is_tidied_up_after_and_a_running_one_is_not(temp, tmp_path):
    (temp / "assay-job-notes").write_text("no folder")
    (temp / "beam-pipeline-tempabc").mkdir()  # somebody's
    out = tmp_path / "out"
    environment = {**os.environ, "TMPDIR": str(temp)}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(out)], env=environment, stdout=subprocess.PIPE
    )
    with job:
        assert job.stdout.readline() == b"begun\n"
        (own,) = [path for path in temp.glob("assay-job-*") if path.is_dir()]
        assert list(own.glob("beam-pipeline-temp*"))
        remove_stale()
        assert list(own.glob("beam-pipeline-temp*"))
        job.kill()
    assert job.wait() == -signal.SIGKILL
    assert own.exists()
    (out / MANIFEST).touch()
    assert (out / WORK).exists()
    collect_garbage(str(out))
    assert names(temp) == ["assay-job-notes", "beam-pipeline-tempabc"]


def test_a_folder_that_was_never_locked_goes_and_what_is_still_used_stays(temp):
    (temp / "assay-job-empty").mkdir()
    with own_temporary() as folder:
        assert names(temp) == [folder.name]
        (folder / "assay-pool-1").mkdir()
    remove_stale()
    assert names(folder) == ["assay-pool-1"]
