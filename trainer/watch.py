"""Who among many ranks is gone, hangs or failed: told apart, so that the message can name it.

A collective only says that something was not received. So each rank counts in the store which
exchange it has entered (`entered`), a thread of it counts half seconds (`beats`), and a rank that
fails leaves its message. Then a rank whose beats stand still was killed, and one that beats without
entering the exchange that others wait in hangs. The thread also ends a process that no exception
can reach, since a NCCL collective waits for a dead rank for ever.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.distributed_c10d import Store

from shards.console import console
from shards.errors import TrainingError

BEAT_SECONDS = 0.5
SILENT_SECONDS = 4 * BEAT_SECONDS
"""How long a rank's beats must stand still for it to count as gone."""

GRACE_SECONDS = 2 * SILENT_SECONDS
"""How long the main thread may take to end by itself once some rank has failed."""

_FAILED = "failed"


class Watch:
    """Watches the ranks of one job from one of them; use it as a context manager."""

    def __init__(self, store: Store, rank: int, world_size: int, timeout_s: float) -> None:
        """Watch through `store`; an exchange that takes longer than `timeout_s` ends the job."""
        self._store, self.rank, self.world_size = store, rank, world_size
        self._timeout_s = timeout_s
        self._entered = 0
        self._waits_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._write("entered", 0)
        self._write("beats", 0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Mark a collective, or several of them, so that the others know how far this rank is.

        Raises:
            TrainingError: it failed; the message names the rank that is to blame.
        """
        self._entered += 1
        around = self._waits_since
        try:
            self._write("entered", self._entered)
            self._waits_since = time.monotonic()
            yield
        except torch.OutOfMemoryError:
            raise  # a RuntimeError, but nothing that another rank is to blame for
        except RuntimeError as error:  # what gloo, NCCL and the store raise
            raise TrainingError(self.blame(str(error))) from error
        finally:
            self._waits_since = around

    def failed(self, message: str) -> None:
        """Tell the other ranks why this one ends; the first message of a job counts."""
        try:
            said = self._store.compare_set(_FAILED, "", message)
        except RuntimeError:
            return  # the store went with the rank that held it: nobody is left to tell
        if said.decode() == message:
            # Without torchrun the store goes with the first rank: give the others time to read.
            time.sleep(2 * BEAT_SECONDS)

    def post(self, name: str, text: str) -> None:
        """Leave a text under a name, for all ranks to read.

        Raises:
            TrainingError: the store is gone.
        """
        try:
            self._store.set(f"post/{name}/{self.rank}", text)
        except RuntimeError as error:
            raise TrainingError(f"the store of the job is gone ({error})") from error

    def posted(self, name: str) -> list[str] | None:
        """Return what each rank left under a name, in their order; None until all have.

        Raises:
            TrainingError: the store is gone.
        """
        names = [f"post/{name}/{rank}" for rank in range(self.world_size)]
        try:
            if not self._store.check(names):
                return None
            return [self._store.get(each).decode() for each in names]
        except RuntimeError as error:
            raise TrainingError(f"the store of the job is gone ({error})") from error

    def blame(self, error: str) -> str:
        """Say which rank ended the job, as far as it can be known; takes `SILENT_SECONDS`."""
        try:
            first = self._read("beats")
            time.sleep(SILENT_SECONDS)
            message = self._message()
            if message:
                return message
            entered, last = self._read("entered"), self._read("beats")
        except RuntimeError:
            return f"the store of the job is gone, and with it the rank that held it ({error})"
        pairs = enumerate(zip(first, last, strict=True))
        gone = [r for r, (a, b) in pairs if a == b and r != self.rank]
        behind = [r for r, count in enumerate(entered) if count < self._entered]
        if gone:
            message = (
                f"{_ranks(gone)} of {self.world_size} is gone: killed or frozen, or its machine is"
            )
        elif behind:
            message = (
                f"{_ranks(behind)} of {self.world_size} hangs: has not come to exchange"
                f" {self._entered}, where {_ranks([self.rank])} waits"
            )
        else:
            message = f"no rank is behind, and yet an exchange failed ({error})"
        message += "; start the job again and it goes on from the last checkpoint"
        self.failed(message)
        return message

    def _message(self) -> str:
        return self._store.get(_FAILED).decode() if self._store.check([_FAILED]) else ""

    def _write(self, what: str, number: int) -> None:
        self._store.set(f"{what}/{self.rank}", str(number))

    def _read(self, what: str) -> list[int]:
        """Return a number of every rank; -1 where it was never written."""
        names = [f"{what}/{rank}" for rank in range(self.world_size)]
        return [int(self._store.get(n)) if self._store.check([n]) else -1 for n in names]

    def _run(self) -> None:
        """Run on the thread: beat, and end the process when the job cannot go on."""
        beats = 0
        while not self._stop.wait(BEAT_SECONDS):
            beats += 1
            since = self._waits_since
            try:
                self._write("beats", beats)
                if since is not None and time.monotonic() - since > self._timeout_s:
                    late = f"nothing came within {self._timeout_s:g} s (train.rank_timeout_s)"
                    self._end(f"{late}: {self.blame('timeout')}")
                message = self._message()
                if message and not self._stop.wait(GRACE_SECONDS):
                    self._end(message)
            except RuntimeError as error:
                if not self._stop.wait(GRACE_SECONDS):
                    self._end(f"the store of the job is gone ({error})")

    def _end(self, message: str) -> None:
        console.print(f"error: rank {self.rank}: {message}", markup=False, soft_wrap=True)
        os._exit(TrainingError.exit_code)


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
