import os
import signal
import subprocess
import tempfile

import pytest

from shards.errors import TrainingError
from trainer import parallel
from trainer.config import TrainConfig
from trainer.parallel import (
    INTERRUPTED,
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
from trainer.records import METRICS
from trainer.signals import Stopped

CONFIG = TrainConfig()

RUN = """
trap 'kill -$1 $PPID; sleep 0.5; echo saved > {folder}/saved; exit 75' TERM
kill -$0 $PPID
while :; do sleep 0.05; done
"""
"""A run that has its study signalled, with $0 at once and with $1 while it saves."""


def ended(tmp_path, command, errors=b""):
    said = tempfile.TemporaryFile()
    said.write(errors)
    process = subprocess.Popen(command)
    return _Running(Job("raw-1", (), tmp_path, CONFIG), process, said)


def test_a_run_that_cannot_start_stops_the_study_with_its_own_message(tmp_path):
    arguments = ("train", str(tmp_path / "none.toml"), "--data=x", "--out=y", "--quiet")
    with (
        Bars(quiet=True) as bars,
        pytest.raises(TrainingError, match=r"run raw-1: .*none\.toml: no such recipe file"),
    ):
        run_jobs([Job("raw-1", arguments, tmp_path, CONFIG)], 2, bars)


def test_a_killed_run_is_named(tmp_path):
    run = ended(tmp_path, ["sleep", "60"])
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    with pytest.raises(TrainingError, match="run raw-1 was killed by SIGKILL"):
        _check(run)


@pytest.mark.parametrize("code", [INTERRUPTED, *STOPPED])
def test_a_run_that_was_told_to_stop_stops_the_study(tmp_path, code):
    end = f"exit {code}" if code > 0 else f"kill -{-code} $$"
    run = ended(tmp_path, ["sh", "-c", end])
    run.process.wait()
    with pytest.raises(KeyboardInterrupt) as stop:
        _check(run)
    assert isinstance(stop.value, Stopped) == (code != INTERRUPTED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_the_study_when_its_runs_have_saved(tmp_path, monkeypatch, number):
    """Whoever sent SIGTERM or SIGUSR1 gets `Stopped`, exit code 75; more of them change nothing."""
    then = signal.SIGTERM if number == signal.SIGUSR1 else signal.SIGUSR1
    script = RUN.format(folder=tmp_path)

    def start(job, bars):
        command = ["bash", "-c", script, str(int(number)), str(int(then))]
        return ended(tmp_path, command)._replace(job=job)

    monkeypatch.setattr(parallel, "_start", start)
    jobs = [Job(name, (), tmp_path, CONFIG) for name in ("raw-1", "raw-2")]
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    with Bars(quiet=True) as bars, pytest.raises(KeyboardInterrupt) as stop:
        run_jobs(jobs, 1, bars)
    assert isinstance(stop.value, Stopped) == (number != signal.SIGINT)
    if number != signal.SIGINT:
        assert f"{number.name} with raw-1 under way and 1 to come" in str(stop.value)
    assert (tmp_path / "saved").exists()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_metrics_of_the_run_before_are_not_shown(tmp_path, monkeypatch):
    """A run that replaces another has its folder, and there the other's last step."""
    row = (
        b'{"step":%d,"tokens":1,"loss":1,"lr":1,"grad_norm":1,"seconds":1,"tokens_per_s":1,'
        b'"wait_share":0}\n'
    )
    (tmp_path / METRICS).write_bytes(row % 32)
    seen = []
    monkeypatch.setattr(Bars, "update", lambda self, name, step, *facts: seen.append(step))
    script = f"sleep 0.4; sed -i s/32/2/ {tmp_path / METRICS}; sleep 0.4"
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **how: popen(["sh", "-c", script], **how))
    with Bars(quiet=True) as bars:
        run_jobs([Job("raw-1", (), tmp_path, CONFIG)], 1, bars)
    assert set(seen) == {2}


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
