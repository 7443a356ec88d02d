"""Runs of a study side by side: each is an `assay train` process of its own.

Two runs of one thread on two cores do about half as much again as one run of two threads (14.8k
against 10.1k tokens/s for the demo's model), since a small model leaves threads waiting for each
other. A run is the same wherever it is made; the study then finds it finished.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NamedTuple

from shards.errors import TrainingError
from trainer.config import TrainConfig
from trainer.progress import Bars
from trainer.records import METRICS, read_progress
from trainer.signals import PREEMPTED, StopFlag, Stopped, stop_signals

POLL_SECONDS = 0.25
INTERRUPTED = 130
"""Exit code of a run that ^C stopped; it has written its checkpoint."""

STOPPED = (PREEMPTED, -signal.SIGTERM, -signal.SIGUSR1)
"""Exit codes of a run that something else told to stop: with a checkpoint, or before its first."""

PARENT = "ASSAY_STUDY_PID"
"""Environment variable that tells a run which process started it."""


class Job(NamedTuple):
    """One run: its name, the arguments after `python -m trainer`, its folder and its settings."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    config: TrainConfig


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    before: int = 0
    """When its metrics were last written before it started: see `_written`."""


def default_jobs(threads: int) -> int:
    """Return how many runs of `threads` threads fit on this machine's cores."""
    return max(1, len(os.sched_getaffinity(0)) // threads)


def is_orphan() -> bool:
    """Whether the study that started this run is gone, killed without a chance to say so.

    The run then stops like after a signal; going on, it would meet itself when the study is rerun.
    """
    parent = os.environ.get(PARENT)
    return parent is not None and parent != str(os.getppid())


def run_jobs(jobs: list[Job], at_once: int, bars: Bars) -> None:
    """Run all jobs, `at_once` at a time, in order.

    When one fails the others are told to stop, so that each leaves a checkpoint.

    Raises:
        TrainingError: a run failed or was killed, with its name and its own message.
        Stopped: SIGTERM or SIGUSR1 came, to this process or to a run; the runs have stopped, each
            with its checkpoint.
        KeyboardInterrupt: likewise, for SIGINT.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    with stop_signals() as flag:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not flag.signal:
                    running.append(_start(waiting.pop(0), bars))
                time.sleep(POLL_SECONDS)
                _raise_signal(flag, running, waiting)
                for run in list(running):
                    if _written(run.job) != run.before:
                        bars.update(run.job.name, *read_progress(run.job.folder))
                    if run.process.poll() is not None:
                        running.remove(run)
                        _check(run)
            _raise_signal(flag, running, waiting)  # one that came with the last run's end
        except BaseException:
            # Signals are still held: Slurm's SIGTERM after its warning must not end the waiting.
            _stop(running)
            raise


def _raise_signal(flag: StopFlag, running: list[_Running], waiting: list[Job]) -> None:
    """Raise what a signal asks for, if one came."""
    if flag.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if flag.signal:
        names = ", ".join(run.job.name for run in running) or "no run"
        raise Stopped(
            f"{flag.signal.name} with {names} under way and {len(waiting)} to come: what was"
            " trained is in their checkpoints"
        )


def _written(job: Job) -> int:
    """Return when the run's metrics were written last, ns; 0 if never.

    Until the run writes some they are of what it goes on from, or of a run that it replaces.
    """
    try:
        return (job.folder / METRICS).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _start(job: Job, bars: Bars) -> _Running:
    bars.begin(job.name, job.config.total_steps)
    before = _written(job)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the run is over)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *job.arguments],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=os.environ | {PARENT: str(os.getpid())},
        # Out of reach of the terminal's ^C: a run that is signalled twice does not checkpoint.
        start_new_session=True,
    )
    return _Running(job, process, errors, before)


def _check(run: _Running) -> None:
    """Raise what a finished process says, if it did not end well."""
    code = run.process.returncode
    with run.errors as errors:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if code == 0:
        return
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code in STOPPED:
        raise Stopped(f"run {run.job.name} was told to stop, and the others after it")
    if code < 0:
        name = signal.Signals(-code).name
        raise TrainingError(
            f"run {run.job.name} was killed by {name} (out of memory?): run the same command again"
            " and it goes on from the last checkpoint, with fewer --jobs if memory is short"
        )
    raise TrainingError(
        f"run {run.job.name}: {said.removeprefix('error: ') or f'exit code {code}'}"
    )


def _stop(running: list[_Running]) -> None:
    """Let every run write its checkpoint and end."""
    for run in running:
        run.process.send_signal(signal.SIGTERM)
    for run in running:
        run.process.wait()
        run.errors.close()
