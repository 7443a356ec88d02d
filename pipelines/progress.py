"""Progress of a Beam job: workers append to files, the command polls them and draws a bar.

`FnApiRunner.run_pipeline` blocks and reports nothing until it is done, so each worker appends one
line `bytes documents` per finished element to a file of its own, and a thread of the command adds
them up. That works the same in process and with worker processes.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
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
            with self._path.open("a") as file:
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
    label: str, total_bytes: int, progress: str, *, quiet: bool = False
) -> Iterator[None]:
    """Show a live bar while the body runs; a plain closing line when not at a terminal."""
    if not progress:
        yield
        return
    folder = Path(progress)
    start = time.monotonic()
    if quiet or not console.is_terminal:
        yield
        if not quiet:
            _closing_line(label, folder, time.monotonic() - start)
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
        task = bar.add_task(label, total=max(total_bytes, 1), done="")
        watcher = threading.Thread(
            target=_watch, args=(bar, task, folder, start, stop), daemon=True
        )
        watcher.start()
        try:
            yield
            bar.update(task, completed=max(total_bytes, 1))
        finally:
            stop.set()
            watcher.join()


def _watch(
    progress: Progress, task: TaskID, folder: Path, start: float, stop: threading.Event
) -> None:
    last = False
    while not last:
        last = stop.wait(_POLL_SECONDS)
        size, documents = read_progress(folder)
        rate = size / 1e6 / max(time.monotonic() - start, 1e-9)
        done = f"{size / 1e6:,.1f} MB  {documents:,} documents  {rate:,.1f} MB/s"
        if last and progress.tasks[0].finished:
            progress.update(task, done=done)
        else:
            progress.update(task, completed=size, done=done)


def _closing_line(label: str, folder: Path, seconds: float) -> None:
    size, documents = read_progress(folder)
    rate = size / 1e6 / max(seconds, 1e-9)
    console.print(
        f"{label}: {size / 1e6:,.1f} MB, {documents:,} documents, {seconds:.1f} s, {rate:,.1f} MB/s"
    )
