"""Checkpoints written while the run goes on.

`save` copies the state into memory of its own, which is all that a step waits for, and a thread
writes it. Two are never written at once: a `save` that comes too early waits for the one before. A
thread that fails stops the run at its next step. Where weights are cut over the ranks every rank
writes its part, and the first one makes the checkpoint when the last has said that its part is on
the disk; they say so through the job's store, so that no collective runs beside those of a step.

torch's `dcp.async_save` was measured and not taken (`benchmarks/checkpoint.py`): it blocks for
longer, takes 0.6 to 1.2 s to import, its metadata is a pickle, which may run code when it is read,
a flipped bit in its files is loaded without a word, and its thread runs collectives of its own.
"""

import threading
import time
from typing import Any

import msgspec
import torch
from torch import Tensor

from shards.errors import AssayError, TrainingError
from trainer.checkpoint import (
    Checkpoint,
    Part,
    Piece,
    commit_checkpoint,
    write_part,
)
from trainer.history import Times, rollback_point
from trainer.ranks import Ranks

POLL_SECONDS = 0.02


class Saver:
    """Writes the checkpoints of one run, one after the other; use it as a context manager."""

    def __init__(self, folder: Any, run_key: str, config: Any, ranks: Ranks, *, cut: bool) -> None:
        """Save into `folder`.

        Args:
            folder: the run's folder; where weights are cut (`cut`) all ranks must see the same.
            run_key: the run's key.
            config: gives `keep_checkpoints`, `checkpoint_async`, `rank_timeout_s`, and with `spike`
                and `checkpoint_every` which checkpoint must stay.
            ranks: who writes: the first, or with `cut` each its part.
            cut: whether the states hold `Piece`s.
        """
        self._folder, self._key, self._config, self._ranks = folder, run_key, config, ranks
        self._writers = ranks.world_size if cut else 1
        self._buffers: dict[str, Tensor] = {}
        self._copying: set[torch.device] = set()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._abandoned = threading.Event()
        self.last: Checkpoint | None = None
        """The newest checkpoint that this rank has made; only the first one makes them."""
        self.blocked_seconds = 0.0
        """How long steps have waited for checkpoints."""

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for a thread at work; an error that ends the run is not covered by another one."""
        if kind is not None:
            self._abandoned.set()  # ranks that are gone will not say that their part is written
        if self._thread:
            self._thread.join()

    def save(self, step: int, state: dict[str, Any], times: Times) -> None:
        """Begin to write a checkpoint; the state may be changed when this returns.

        Raises:
            TrainingError: this one or the one before it cannot be written.
        """
        begun = time.perf_counter()
        self.finish()
        if self._config.checkpoint_async:
            state = self._copied(state)
            times = msgspec.structs.replace(times)
            self._thread = threading.Thread(target=self._run, args=(step, state, times))
            self._thread.start()
        else:
            self._run(step, state, times)
            self.check()
        self.blocked_seconds += time.perf_counter() - begun

    def check(self) -> None:
        """Raise what has gone wrong on the thread.

        Raises:
            TrainingError: the last checkpoint could not be written.
        """
        if self._error:
            error, self._error = self._error, None
            raise error

    def finish(self) -> Checkpoint | None:
        """Wait until everything is on the disk; return the newest checkpoint, on the first rank.

        Raises:
            TrainingError: the last checkpoint could not be written.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        self.check()
        return self.last

    def _run(self, step: int, state: dict[str, Any], times: Times) -> None:
        """Write, and on the first rank commit: on the thread, or in place of it."""
        try:
            part = write_part(self._folder, step, state, self._ranks.rank, self._writers)
            parts = [part] if self._writers == 1 else self._parts_of_all(step, part)
            if parts and self._ranks.first:
                keep, pinned = self._config.keep_checkpoints, rollback_point(self._config, step)
                self.last = commit_checkpoint(
                    self._folder, self._key, step, parts, times, keep, pinned
                )
        except AssayError as error:
            self._error = error
        except Exception as error:  # a bug must end the run too, not only its thread
            self._error = TrainingError(
                f"{self._folder}: the checkpoint of step {step} failed:"
                f" {type(error).__name__}: {error}"
            )

    def _parts_of_all(self, step: int, part: Part) -> list[Part] | None:
        """Say that this rank's part is written; on the first rank wait for those of all."""
        name = f"checkpoint-{step}"
        self._ranks.post(name, msgspec.json.encode(part).decode())
        deadline = time.monotonic() + self._config.rank_timeout_s
        while self._ranks.first and not self._abandoned.is_set():
            texts = self._ranks.posted(name)
            if texts is not None:
                return [msgspec.json.decode(text, type=Part) for text in texts]
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{self._folder}: not all of {self._writers} ranks have written their parts of"
                    f" the checkpoint of step {step} within {self._config.rank_timeout_s:g} s"
                    " (train.rank_timeout_s); start the job again and it goes on from the last one"
                )
            time.sleep(POLL_SECONDS)
        return None

    def _copied(self, state: dict[str, Any]) -> dict[str, Any]:
        """Copy all tensors of a state into buffers in main memory, which are used again."""
        copied: dict[str, Any] = self._copy(state, "")
        while self._copying:  # only queued; the thread that will read the copies knows no stream
            torch.cuda.synchronize(self._copying.pop())
        return copied

    def _copy(self, value: Any, name: str) -> Any:
        if isinstance(value, Piece):
            return value._replace(tensor=self._copy(value.tensor, name))
        if isinstance(value, Tensor):
            found = self._buffers.get(name)
            if found is None or found.shape != value.shape or found.dtype != value.dtype:
                # Pinned, so that copies from a GPU run beside each other at the bus's speed.
                found = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
                self._buffers[name] = found
            if value.is_cuda:
                self._copying.add(value.device)
            return found.copy_(value, non_blocking=True)
        if isinstance(value, dict):
            return {key: self._copy(item, f"{name}/{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item, f"{name}/{number}") for number, item in enumerate(value)]
        return value
