"""Progress of a Beam job: workers append to files, the command polls them and draws a bar.

`FnApiRunner.run_pipeline` blocks and reports nothing until it is done, so each worker appends one
line `bytes documents` per finished element to a file of its own, and a thread of the command adds
them up. That works the same in process and with worker processes.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import click
import msgspec
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from shards.console import console

_POLL_SECONDS = 0.2
_EVENT_SECONDS = 1.0


class ProgressLog:
    """One worker's progress file; `folder` = "" (remote runners) writes nothing."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / f"{uuid.uuid4().hex}.txt" if folder else None

    def add(self, size: int, documents: int) -> None:
        """Record `size` finished bytes and `documents` finished documents."""
        if self._path is not None:
            # A full disk fails the job where it loses something, and not here.
            with suppress(OSError), self._path.open("a") as file:
                file.write(f"{size} {documents}\n")


def read_progress(folder: Path) -> tuple[int, int]:
    """Return (bytes, documents) over all progress files; a half-written last line is left out."""
    size = documents = 0
    for path in folder.glob("*.txt"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                first, second = line.split()
                size += int(first)
                documents += int(second)
    return size, documents


def progress_folder(out: str, label: str) -> str:
    """Make a fresh folder for one stage's progress files; "" where `out` is not a local path."""
    if "://" in out:
        return ""
    folder = Path(out) / "_work" / "progress" / f"{label}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    return str(folder)


@contextmanager
def show_progress(
    label: str,
    total_bytes: int,
    progress: str,
    *,
    unit: str = "documents",
    quiet: bool = False,
    events: bool = False,
) -> Iterator[None]:
    """Show a live bar while the body runs; a plain closing line when not at a terminal.

    Args:
        label: the stage's name.
        total_bytes: what the progress files will add up to; 0 where it cannot be known.
        progress: folder of the progress files, "" for none.
        unit: what the files' second number counts.
        quiet: show nothing.
        events: write one JSON object a line to stdout instead (`stage_event`).
    """
    clock = time.monotonic()
    folder = Path(progress) if progress else None

    # The steps of a stage share a folder: what an earlier one did is not this one's.
    size_before, count_before = read_progress(folder) if folder else (0, 0)

    def found() -> tuple[int, int, float]:
        size, count = read_progress(folder) if folder else (0, 0)
        return size - size_before, count - count_before, time.monotonic() - clock

    if events:
        with _events(label, total_bytes, unit, found, live=folder is not None):
            yield
    elif quiet or folder is None:
        yield
    elif not console.is_terminal:
        yield
        size, count, seconds = found()
        console.print(f"{label}: {describe(size, count, unit, seconds)}, {seconds:.1f} s")
    else:
        with _bar(label, total_bytes, unit, found):
            yield


@contextmanager
def _bar(
    label: str, total_bytes: int, unit: str, found: Callable[[], tuple[int, int, float]]
) -> Iterator[None]:
    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=total_bytes or None, done="")

        def draw() -> None:
            size, count, seconds = found()
            bar.update(task, completed=size, done=describe(size, count, unit, seconds))

        with _polling(draw, _POLL_SECONDS):
            yield
        draw()
        bar.update(task, total=total_bytes or 1, completed=total_bytes or 1)


@contextmanager
def _events(
    label: str,
    total_bytes: int,
    unit: str,
    found: Callable[[], tuple[int, int, float]],
    *,
    live: bool,
) -> Iterator[None]:
    def write(state: str) -> None:
        click.echo(stage_event(label, state, *found(), total_bytes, unit))

    write("started")
    try:
        with _polling(lambda: write("running"), _EVENT_SECONDS) if live else nullcontext():
            yield
    except BaseException as error:
        write("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    write("finished")


@contextmanager
def _polling(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `call` every `seconds` from a thread while the body runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            call()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def stage_event(
    stage: str, state: str, size: int, count: int, seconds: float, total_bytes: int, unit: str
) -> bytes:
    """Return one line of `--json`: a JSON object on how far a stage is.

    Its keys: `event` ("stage"), `stage`, `state` (started, running, and last finished, failed or
    stopped), `bytes` done of `total_bytes` (null where it cannot be known), `count` of `unit`,
    `seconds` since the start, `bytes_per_second`, and `eta_seconds`, null as long as nothing is
    done or no total is known.
    """
    known = size > 0 and total_bytes > 0
    return msgspec.json.encode(
        {
            "event": "stage",
            "stage": stage,
            "state": state,
            "bytes": size,
            "total_bytes": total_bytes or None,
            "count": count,
            "unit": unit,
            "seconds": round(seconds, 3),
            "bytes_per_second": round(size / max(seconds, 1e-9)),
            "eta_seconds": round(max(total_bytes - size, 0) * seconds / size, 1) if known else None,
        }
    )


def describe(size: int, count: int, unit: str, seconds: float) -> str:
    """Say how far a stage is, leaving out what it does not count."""
    parts = []
    if size:
        parts.append(f"{size / 1e6:,.1f} MB ({size / 1e6 / max(seconds, 1e-9):,.1f} MB/s)")
    if count:
        parts.append(f"{count:,} {unit}")
    return ", ".join(parts) or f"no {unit}"
