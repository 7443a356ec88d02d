"""Signals that ask a run to stop: it finishes its step, writes a checkpoint and says so.

SIGINT is a person (^C), SIGTERM a machine that goes away, SIGUSR1 a scheduler's early warning
(Slurm's `--signal=USR1@120`). The last two end the command with `PREEMPTED`, so that whoever sent
the signal knows that starting the same command again goes on. They do so at any moment: while steps
run they are noted, and looked at where all ranks agree; where a process is alone and has nothing
half-done (it reads its data, it fits the baselines), they are raised at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PREEMPTED = 75
"""Exit code of a run that was told to stop and can go on: EX_TEMPFAIL of BSD's sysexits.h."""

BY_MACHINE = (signal.SIGTERM, signal.SIGUSR1)
STOP_SIGNALS = (signal.SIGINT, *BY_MACHINE)

NOT_BEGUN = "before a step was taken: nothing is lost"
NO_RUN = "with no run under way: what is done is kept"

BLOCKED_SECONDS = 2.0
"""How long a signal may wait for the main thread before it counts as blocked."""


class Stopped(KeyboardInterrupt):
    """A run was told to stop, by something other than ^C, and can go on."""


class StopFlag:
    """Which signal came first, if one came: noted to be looked at, or raised at once."""

    def __init__(self, where: str | None = None) -> None:
        """Begin with signals that are raised at once, as having come `where`; or noted."""
        self.signal: signal.Signals | None = None
        self._where = where

    @property
    def name(self) -> str:
        """The signal's name; nothing if none came."""
        return self.signal.name if self.signal else ""

    def note(self) -> None:
        """From here on signals are only noted."""
        self._where = None

    def at_once(self, where: str) -> None:
        """From here on a signal is raised when it comes; one that was noted is raised here.

        Raises:
            Stopped, KeyboardInterrupt: the signal.
        """
        self._where = where
        if self.signal:
            self._raise(self.signal)

    def take(self, number: signal.Signals | None) -> None:
        """Take a signal over from another flag, if one came to it: note it, or raise it.

        Raises:
            Stopped, KeyboardInterrupt: the signal.
        """
        self.signal = self.signal or number
        if self.signal and self._where is not None:
            self._raise(self.signal)

    def came(self, number: signal.Signals) -> None:
        """Note a signal, or raise it; of those by a machine only the first, as they come in rows.

        Raises:
            Stopped, KeyboardInterrupt: the signal.
        """
        first = self.signal is None
        self.signal = self.signal or number
        if self._where is not None and (first or number == signal.SIGINT):
            self._raise(number)

    def _raise(self, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(f"{number.name} {self._where}")


_flags: list[StopFlag] = []
"""Of the main thread, the innermost last."""


@contextmanager
def stop_signals(where: str | None = None, *, to_the_end: bool = False) -> Iterator[StopFlag]:
    """Turn the stop signals into a flag, whose first state is `StopFlag(where)`.

    Blocks inside of each other hand on what came: Python drops what is raised while it runs a
    finaliser or a callback of C code (numba's, say), and a signal may come after the last look. So
    the next block begins with the signal, and one that ends as if none had come leaves it to the
    block around it.

    A second ^C gets the handler from before, so that nobody has to wait; the other signals may come
    in a row (Slurm sends SIGTERM after its warning) and the checkpoint is still written. Signals
    belong to the main thread; elsewhere (a test, a notebook) the flag is never set.

    Args:
        where: see `StopFlag`.
        to_the_end: the process ends after this; signals of a machine are ignored from then on,
            since its exit code is decided.

    Raises:
        Stopped, KeyboardInterrupt: a signal came to another block, and this one raises at once.
    """
    flag = StopFlag(where)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_signal(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])
        flag.came(signal.Signals(number))

    outer = _flags[-1] if _flags else StopFlag()
    _flags.append(flag)
    try:
        for number in before:
            signal.signal(number, on_signal)
        flag.take(outer.signal)
        yield flag
    finally:
        _flags.remove(flag)
        for number, handler in before.items():
            over = to_the_end and number in BY_MACHINE
            signal.signal(number, signal.SIG_IGN if over else handler)
    outer.take(flag.signal)


@contextmanager
def even_if_blocked(end: Callable[[str], object]) -> Iterator[None]:
    """End the process with `PREEMPTED` at a signal that its main thread does not come to handle.

    Python runs handlers between two instructions of the main thread, which may be inside torch for
    minutes: a rendezvous waits for ranks that never come. `end` is called with its name,
    on another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while byte := os.read(reading, 1):  # nothing when the other end is closed
            if byte[0] in BY_MACHINE and not over.wait(BLOCKED_SECONDS):
                end(signal.Signals(byte[0]).name)
                os._exit(PREEMPTED)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(writing)
        thread.join()
        os.close(reading)


def leave_early() -> None:
    """Let signals of a machine end this process as a stop, until a command has its own handlers."""

    def leave(number: int, frame: Any) -> None:
        word = f"stopped: {signal.Signals(number).name} {NOT_BEGUN}"
        os.write(2, f"{word}; run the same command again and it goes on\n".encode())
        os._exit(PREEMPTED)

    for number in BY_MACHINE:
        signal.signal(number, leave)
