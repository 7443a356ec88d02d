"""What is known of the content of input files, so that a second run need not read them again."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipelines import files
from pipelines.sidecars import read_sidecar

_SETTLED_NS = 2_000_000_000
"""A file that was written to less than 2 s before it was hashed may have been written to once more
without a new time: file systems keep it no finer (FAT: 2 s). Git calls such files racily clean."""


class HashedFile(msgspec.Struct, frozen=True):
    """The xxh3-128 (hex) of a file's content, and what the file system said of it then.

    `inode` is 0 and `mtime_ns` 0 for objects of a remote store, which are read each time.
    """

    hash: str
    bytes: int
    mtime_ns: int
    inode: int
    hashed_ns: int


def stamp(path: str) -> tuple[int, int, int]:
    """Return (bytes, mtime in ns, inode) of a local file, zeros for a remote or missing one."""
    if not files.is_local(path):
        return 0, 0, 0
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def changed_since(stamps: Mapping[str, tuple[int, int, int]]) -> str:
    """Return what to say if a file has not the stamp it had; empty if all have."""
    changed = next((path for path, before in stamps.items() if stamp(path) != before), "")
    return changed and f"{changed}: was changed while it was read; run again when it is finished"


def hashed_file(digest: str, size: int, before: tuple[int, int, int]) -> HashedFile:
    """Record a hash; `before` is the file's `stamp` from before it was read."""
    return HashedFile(digest, size, before[1], before[2], time.time_ns())


def still_holds(known: HashedFile, now: tuple[int, int, int]) -> bool:
    """Tell whether a file with the stamp `now` is, as far as one can see, the one hashed then."""
    same = (known.bytes, known.mtime_ns, known.inode) == now
    return same and now[2] > 0 and now[1] + _SETTLED_NS < known.hashed_ns


def read_record(path: str) -> HashedFile | None:
    """Read a record of an interrupted run; None if there is none that can be used."""
    return read_sidecar(path, HashedFile)


def committed_records(run: Mapping[str, Any]) -> dict[str, HashedFile]:
    """Return path → record from the `run` part of a manifest; none if it is of another version."""
    try:
        return msgspec.convert(run.get("hashed", {}), dict[str, HashedFile])
    except msgspec.ValidationError:
        return {}
