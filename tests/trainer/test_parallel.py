import os
import signal
import subprocess
import tempfile

import pytest

from shards.errors import TrainingError
from trainer.parallel import (
    PARENT,
    STOPPED,
    Job,
    _check,
    _Running,
    default_jobs,
    is_orphan,
    run_jobs,
)
from trainer.progress import Bars


def ended(tmp_path, command, errors=b""):
    said = tempfile.TemporaryFile()
    said.write(errors)
    process = subprocess.Popen(command)
    return _Running(Job("raw-1", (), tmp_path, 1), process, said)


def test_a_run_that_cannot_start_stops_the_study_with_its_own_message(tmp_path):
    arguments = ("train", str(tmp_path / "none.toml"), "--data=x", "--out=y", "--quiet")
    with (
        Bars(quiet=True) as bars,
        pytest.raises(TrainingError, match=r"run raw-1: .*none\.toml: no such recipe file"),
    ):
        run_jobs([Job("raw-1", arguments, tmp_path, 1)], 2, bars)


def test_a_killed_run_is_named(tmp_path):
    run = ended(tmp_path, ["sleep", "60"])
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    with pytest.raises(TrainingError, match="run raw-1 was killed by SIGKILL"):
        _check(run)


@pytest.mark.parametrize("code", STOPPED)
def test_a_run_that_was_told_to_stop_stops_the_study(tmp_path, code):
    run = ended(tmp_path, ["sh", "-c", f"exit {code}"])
    run.process.wait()
    with pytest.raises(KeyboardInterrupt):
        _check(run)


def test_another_exit_code_shows_what_was_said(tmp_path):
    run = ended(tmp_path, ["sh", "-c", "exit 1"], b"error: loss is not finite\n")
    run.process.wait()
    with pytest.raises(TrainingError, match="run raw-1: loss is not finite"):
        _check(run)


def test_runs_share_the_cores():
    assert default_jobs(1) >= default_jobs(10_000) == 1


def test_a_run_knows_whether_its_study_is_there(monkeypatch):
    assert not is_orphan()
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not is_orphan()
    monkeypatch.setenv(PARENT, str(os.getpid()))
    assert is_orphan()
