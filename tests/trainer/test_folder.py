import os
import subprocess
import sys

import pytest

from shards.errors import RecipeError, TrainingError
from trainer.folder import LOCK, claim

HOLD = """
import sys
from pathlib import Path
from trainer.folder import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until its input ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=pipe, stdout=pipe) as other:
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def test_a_second_process_is_told_who_holds_the_folder(holder, tmp_path):
    with (
        pytest.raises(TrainingError, match=rf"{tmp_path}: is in use by process {holder.pid} on"),
        claim(tmp_path, wait_seconds=0.2),
    ):
        pass


def test_it_waits_for_a_process_that_ends(holder, tmp_path, monkeypatch):
    def ends(seconds):
        holder.kill()
        holder.wait()

    monkeypatch.setattr("trainer.folder.time.sleep", ends)
    with claim(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on elsewhere")
    (tmp_path / "checkpoint-00000001.pt.partial-1234abcd").write_text("half")
    for _ in range(2):
        with claim(tmp_path, wait_seconds=0):
            assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/none/run"])
def test_a_place_that_cannot_be_a_folder_is_an_error(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(RecipeError, match=r"--out .*cannot be a run's folder"),
        claim(tmp_path / name),
    ):
        pass
