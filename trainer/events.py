"""What happened to a run besides its steps: `events.jsonl`, a line for each event.

A skipped step has its line here and none in `metrics.jsonl`, since a loss that is not finite is no
number in JSON.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import msgspec

from shards.atomic import write_atomic
from shards.errors import TrainingError
from trainer.records import RUN

EVENTS = "events.jsonl"


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`skipped`: the batch of this step was not learned from; `damaged`: a checkpoint was refused.

    `stopped`: a signal stopped the run, which can go on; only the last line of a run that has not.
    `rolled_back`: as `skipped`, and updates before it were undone; their lines in `metrics.jsonl`
    stay, since they were made.

    `step` is the step that was skipped, or the one that the run went on from; `detail` says why.
    """

    step: int
    kind: Literal["skipped", "rolled_back", "damaged", "stopped"]
    detail: str


@contextmanager
def room_for(path: Path, step: int) -> Iterator[None]:
    """Say which of a run's files could not be written, and when.

    Raises:
        TrainingError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written at step {step}: {error.strerror}; make room and run the"
            " same command again: it goes on from the last checkpoint"
        ) from None


def append_line(file: IO[bytes], line: bytes) -> None:
    """Append a line to a file without a buffer, which would fail again when it is closed.

    Raises:
        OSError: it is not there whole.
    """
    data = line + b"\n"
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def add_event(folder: Path, event: Event) -> None:
    """Append an event to a run's file.

    Raises:
        TrainingError: it cannot be written (a full disk).
    """
    path = folder / EVENTS
    with room_for(path, event.step), path.open("ab", buffering=0) as file:
        append_line(file, msgspec.json.encode(event))


def add_early_stop(folder: Path, signal: str) -> None:
    """Append a stop that came before the run was there to say its step, unless it has said so.

    A run that is finished has not stopped.
    """
    found = read_events(folder)
    if (folder / RUN).exists() or (found and found[-1].kind == "stopped"):
        return
    numbers = [path.stem.partition("-")[2] for path in folder.glob("checkpoint-*.json")]
    step = max((int(number) for number in numbers if number.isdecimal()), default=0)
    add_event(folder, Event(step, "stopped", signal))


def read_events(folder: Path) -> list[Event]:
    """Return the events of a run; lines that a crash cut off are left out."""
    path = folder / EVENTS
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            events.append(msgspec.json.decode(line, type=Event))
        except msgspec.DecodeError:
            continue
    return events


def cut_events(folder: Path, until: int) -> None:
    """Remove what belongs to steps after `until`, which will be taken again, and any stop."""
    if not (folder / EVENTS).exists():
        return
    found = read_events(folder)
    kept = [event for event in found if event.step <= until and event.kind != "stopped"]
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in kept)
    with room_for(folder / EVENTS, until):
        write_atomic(folder / EVENTS, lines)
