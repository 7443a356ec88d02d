"""What happened to a run besides its steps: `events.jsonl`, a line for each event.

A skipped step has its line here and none in `metrics.jsonl`, since a loss that is not finite is no
number in JSON.
"""

from pathlib import Path
from typing import Literal

import msgspec

from shards.atomic import write_atomic

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


def add_event(folder: Path, event: Event) -> None:
    """Append an event to a run's file."""
    with (folder / EVENTS).open("ab") as file:
        file.write(msgspec.json.encode(event) + b"\n")


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
    write_atomic(folder / EVENTS, lines)
