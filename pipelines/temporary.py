"""A folder of a job's own in the machine's temporary folder, so that a later job can tidy up.

Beam makes a folder for every pipeline there (`beam-pipeline-temp…`), whose name does not say whose
it is, and a job that was killed removes none. A job here has them made inside a folder of its own,
on whose lock file it holds a lock of the kernel (flock), which ends with the job however that ends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines import worker

_PREFIX = "assay-job-"
_OF_BEAM = "beam-pipeline-temp*"
_LOCK = "lock"


@contextmanager
def own_temporary() -> Iterator[Path]:
    """Have this process make temporary files in a folder of the job's, which is removed at the end.

    What `tempfile` takes for its default is one value a process: so one job at a time.

    Yields:
        The folder.
    """
    remove_stale()
    folder, lock = _make(Path(tempfile.gettempdir()))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with lock:
            yield folder
    finally:
        tempfile.tempdir = before
        for path in folder.glob(_OF_BEAM):
            shutil.rmtree(path, ignore_errors=True)
        (folder / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # a pool of workers that started meanwhile is in it, and in use
            folder.rmdir()


def _make(root: Path) -> tuple[Path, IO[str]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        with suppress(FileNotFoundError):  # a job that tidies up came before the lock
            lock = (folder / _LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / _LOCK).exists():
                return folder, lock
            lock.close()


def remove_stale() -> None:
    """Remove the folders of this user's jobs that have ended, and of no job that runs."""
    worker.remove_stale()
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # BlockingIOError: it runs
            if folder.stat().st_uid == os.getuid():
                _remove(folder)


def _remove(folder: Path) -> None:
    try:
        lock = (folder / _LOCK).open("r+")
    except FileNotFoundError:  # killed before it had a lock, or as it ended
        folder.rmdir()
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
