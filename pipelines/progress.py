"""Progress of a Beam job: workers append to files, the command polls them and draws a bar.

`FnApiRunner.run_pipeline` blocks and reports nothing until it is done, so each worker appends one
line `bytes documents` per finished element to a file of its own, and a thread of the command adds
them up. That works the same in process and with worker processes.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from shards.console import console

_POLL_SECONDS = 0.2


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
    label: str, total_bytes: int, progress: str, *, unit: str = "documents", quiet: bool = False
) -> Iterator[None]:
    """Show a live bar while the body runs; a plain closing line when not at a terminal.

    Args:
        label: the stage's name.
        total_bytes: what the progress files will add up to; 0 where it cannot be known.
        progress: folder of the progress files, "" for none.
        unit: what the files' second number counts.
        quiet: show nothing.
    """
    if not progress or quiet:
        yield
        return
    folder = Path(progress)
    start = time.monotonic()
    if not console.is_terminal:
        yield
        done = describe(*read_progress(folder), unit, time.monotonic() - start)
        console.print(f"{label}: {done}, {time.monotonic() - start:.1f} s")
        return
    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=total_bytes or None, done="")

        def watch() -> None:
            while not stop.wait(_POLL_SECONDS):
                found = read_progress(folder)
                done = describe(*found, unit, time.monotonic() - start)
                bar.update(task, completed=found[0], done=done)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
            found = read_progress(folder)
            done = describe(*found, unit, time.monotonic() - start)
            bar.update(task, total=total_bytes or 1, completed=total_bytes or 1, done=done)
        finally:
            stop.set()
            watcher.join()


def describe(size: int, count: int, unit: str, seconds: float) -> str:
    """Say how far a stage is, leaving out what it does not count."""
    parts = []
    if size:
        parts.append(f"{size / 1e6:,.1f} MB ({size / 1e6 / max(seconds, 1e-9):,.1f} MB/s)")
    if count:
        parts.append(f"{count:,} {unit}")
    return ", ".join(parts) or f"no {unit}"
