"""A run's folder belongs to one process at a time.

A study that was killed leaves runs behind, and a person may start the same run twice; two writers
would mix their checkpoints. The lock is the kernel's (`flock`), so it ends with its process however
that ends, and a file left behind locks nothing.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.atomic import is_partial
from shards.errors import RecipeError, TrainingError

LOCK = "lock"
WAIT_SECONDS = 20.0
"""How long to wait for another process: an orphan of a killed study ends at its next step."""

POLL_SECONDS = 0.1


@contextmanager
def claim(folder: Path, wait_seconds: float | None = None) -> Iterator[None]:
    """Make `folder` and hold it for this process; remove what a killed process left half-written.

    Args:
        folder: the run's folder.
        wait_seconds: how long to wait for a process that holds it; `WAIT_SECONDS` if not given.

    Raises:
        RecipeError: the folder cannot be made or written to, or holds somebody else's files.
        TrainingError: another process holds it, with that process's id and host.
    """
    wait = WAIT_SECONDS if wait_seconds is None else wait_seconds
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)
        # Opened for appending: nothing is lost of what the process that holds it wrote there.
        file = (folder / LOCK).open("a+b")
    except OSError as error:
        raise RecipeError(
            f"--out {folder}: cannot be a run's folder ({error.filename}: {error.strerror}); give a"
            " folder that can be written to"
        ) from None
    with file:
        deadline = time.monotonic() + wait
        while not _try_lock(file.fileno(), folder):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                raise TrainingError(
                    f"{folder}: is in use by {holder}, and was for {wait:g} s: two runs must not"
                    " share a folder; wait for that process or stop it, or give another --out"
                )
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        for path in folder.iterdir():
            if is_partial(path):
                path.unlink()
        yield


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files in which no run has begun: runs remove and overwrite files.

    A run's first act is to make the lock file, and `claim` has removed nothing before.
    """
    names = {path.name for path in folder.iterdir()}
    if names and LOCK not in names:
        raise RecipeError(
            f"--out {folder}: is not empty and not a run's folder (it holds {min(names)});"
            " choose another --out"
        )


def _try_lock(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RecipeError(
            f"--out {folder}: its file system has no locks ({error.strerror}): a second run in the"
            " same folder would not be noticed; give a folder on another file system"
        ) from None
    return True
