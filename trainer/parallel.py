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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from shards.errors import TrainingError
from trainer.progress import Bars
from trainer.records import read_progress
from trainer.signals import PREEMPTED

POLL_SECONDS = 0.25
STOPPED = (130, PREEMPTED)
"""Exit codes of a run that was told to stop (^C, a signal) and has written its checkpoint."""

PARENT = "ASSAY_STUDY_PID"
"""Environment variable that tells a run which process started it."""


class Job(NamedTuple):
    """One run: its name, the arguments after `python -m trainer`, its folder and its steps."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    steps: int


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


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
        KeyboardInterrupt: SIGINT or SIGTERM came; every run has written its checkpoint.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    try:
        with _terminate_as_interrupt():
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_start(waiting.pop(0), bars))
                time.sleep(POLL_SECONDS)
                for run in list(running):
                    bars.update(run.job.name, *read_progress(run.job.folder))
                    if run.process.poll() is not None:
                        running.remove(run)
                        _check(run)
    except BaseException:
        _stop(running)
        raise


def _start(job: Job, bars: Bars) -> _Running:
    bars.begin(job.name, job.steps)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the run is over)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *job.arguments],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=os.environ | {PARENT: str(os.getpid())},
        # Out of reach of the terminal's ^C: a run that is signalled twice does not checkpoint.
        start_new_session=True,
    )
    return _Running(job, process, errors)


def _check(run: _Running) -> None:
    """Raise what a finished process says, if it did not end well."""
    code = run.process.returncode
    with run.errors as errors:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if code == 0:
        return
    if code in STOPPED:
        raise KeyboardInterrupt
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


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like ^C while runs are under way."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
