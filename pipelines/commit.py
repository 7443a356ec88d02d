"""How a job owns its output folder, and how its manifest is committed: last, by one rename."""

import fcntl
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from pipelines import files
from pipelines.runners import JobOptions
from shards.errors import DatasetError, PlatformError
from shards.manifest import MANIFEST, Manifest, encode_manifest

WORK = "_work"
"""Folder inside an output where a job keeps what it has finished so far."""

_PACKAGES = ("apache-beam", "numba", "numpy", "pyarrow", "sentencepiece", "zstandard")


@contextmanager
def own_output(out: str, *, keep_work: bool) -> Iterator[None]:
    """Hold the output folder for one job; what it has finished stays in `WORK` if the job fails.

    The lock is the kernel's (flock), so a job that was killed holds none. Other file systems than
    the local one have no lock: there, two jobs on one output are the caller's to avoid.

    Raises:
        PlatformError: another job is writing to this folder, or it cannot be written to.
        DatasetError: see `check_output`.
    """
    check_output(out)
    work = files.join(out, WORK)
    if not files.is_local(out):
        yield
    else:
        lock = Path(work) / "lock"
        try:
            lock.parent.mkdir(exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise PlatformError(f"{out}: cannot be written to: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlatformError(
                    f"{out}: another job is writing to this folder; wait for it or choose another"
                    " --out"
                ) from None
            yield
    if not keep_work:
        files.delete(work)


def check_output(out: str) -> None:
    """Make the output folder, and refuse one that holds something that is not ours.

    Raises:
        DatasetError: `out` is a file, or a folder with files but no manifest and no work folder.
        PlatformError: it cannot be created.
    """
    if not files.is_local(out):
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{out}: is a file; --out must be a folder")
    ours = (folder / MANIFEST).exists() or (folder / WORK).exists()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise DatasetError(f"{out}: is not empty and not an Assay dataset; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlatformError(f"{out}: cannot be created: {error.strerror}") from None


def uncommit(out: str) -> None:
    """Remove the manifest before a shard is overwritten, so that no reader sees a mixture."""
    files.delete(files.join(out, MANIFEST))


def commit(out: str, manifest: Manifest) -> None:
    """Remove shard files of an earlier dataset in this folder, then write the manifest."""
    wanted = {entry.path for entries in manifest.content.shards.values() for entry in entries}
    if files.is_local(out):
        for role in manifest.content.shards:
            for path in (Path(out) / role).glob("*"):
                if f"{role}/{path.name}" not in wanted:
                    path.unlink()
    files.write_atomic(files.join(out, MANIFEST), encode_manifest(manifest))


def run_facts(started: float, options: JobOptions, **facts: Any) -> dict[str, Any]:
    """Return what is true of this run and must not be hashed: time, host, versions, runner."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "assay": metadata.version("assay-corpus"),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "options": msgspec.to_builtins(options),
        **facts,
    }
