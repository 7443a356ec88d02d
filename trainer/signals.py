"""Signals that ask a run to stop: it finishes its step, writes a checkpoint and says so.

SIGINT is a person (^C), SIGTERM a machine that goes away, SIGUSR1 a scheduler's early warning
(Slurm's `--signal=USR1@120`). The last two end the command with `PREEMPTED`, so that whoever sent
the signal knows that starting the same command again goes on.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PREEMPTED = 75
"""Exit code of a run that was told to stop and can go on: EX_TEMPFAIL of BSD's sysexits.h."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A run was told to stop, by something other than ^C, and has written its checkpoint."""


class StopFlag:
    """Which signal came first, if one came: looked at between steps."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn the stop signals into a flag.

    A second ^C gets the handler from before, so that nobody has to wait; the other signals may come
    in a row (Slurm sends SIGTERM after its warning) and the checkpoint is still written. Signals
    belong to the main thread; elsewhere (a test, a notebook) the flag is never set.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_signal(number: int, frame: Any) -> None:
        flag.signal = flag.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
