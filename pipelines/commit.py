"""How a job owns its output folder, and how its manifest is committed: last, by one rename."""

import fcntl
import hashlib
import os
import platform
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import msgspec

from pipelines import files, stores
from pipelines.environment import code_hash, shipped_packages
from pipelines.runners import JobOptions
from pipelines.temporary import own_temporary, remove_stale
from shards.atomic import is_partial
from shards.errors import DatasetError, PlatformError, RecipeError
from shards.manifest import (
    MANIFEST,
    Manifest,
    ShardEntry,
    current_manifest,
    decode_manifest,
    encode_manifest,
    no_manifest,
    read_manifest,
)

WORK = "_work"
"""Folder inside an output where a job keeps what it has finished so far."""

_PACKAGES = ("apache-beam", "numba", "numpy", "pyarrow", "sentencepiece", "zstandard")


ROLES = {"documents": ("kept", "dropped", "spans", "index"), "tokens": ("tokens",)}
"""Folders of shards in a dataset, by its kind."""

_LOCK = "lock"
_MOST_LISTED = 10_000
"""Objects that are looked at to see whose a remote folder is: a store lists 1,000 a request."""

_SHARD = re.compile(r"\d{5,}-of-\d{5,}\.(parquet|arrow)(\.partial-[0-9a-f]+)?")


@contextmanager
def own_output(out: str, kind: str, *, keep_work: bool) -> Iterator[None]:
    """Hold the output folder for one job; what it has finished stays in `WORK` if the job fails.

    The lock is the kernel's (flock), so a job that was killed holds none. Other file systems than
    the local one have no lock: there, two jobs on one output are the caller's to avoid, and the
    file of the lock only says whose the folder is.

    Args:
        out: the output folder.
        kind: of the dataset that the job makes: a key of `ROLES`.
        keep_work: whether `WORK` stays when the job succeeds.

    Raises:
        PlatformError: another job is writing to this folder, or it cannot be written to.
        RecipeError: see `check_output`.
    """
    check_output(out, kind)
    with _lock(out) if files.is_local(out) else _mark(out), own_temporary():
        yield
        if not keep_work:
            _remove_work(out)  # while it is ours


def _remove_work(out: str) -> None:
    """Remove the work folder, its lock file last: from then on another job may own the folder."""
    if not files.is_local(out):
        files.delete(files.join(out, WORK))
        return
    work = Path(out) / WORK
    for path in work.iterdir():
        if path.name != _LOCK:
            files.delete(str(path))
    (work / _LOCK).unlink()
    with suppress(OSError):  # not empty: that other job is there
        work.rmdir()


@contextmanager
def _lock(out: str) -> Iterator[None]:
    lock = Path(out) / WORK / _LOCK
    while True:
        try:
            lock.parent.mkdir(exist_ok=True)
            file = lock.open("w")
        except FileNotFoundError:
            continue  # the job that held it removed the work folder just now
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
            if _is_same(file, lock):
                yield
                return


@contextmanager
def _mark(out: str) -> Iterator[None]:
    """Write the lock's file where there are no locks; it goes with the work folder."""
    whose = f"{socket.gethostname()} {os.getpid()}\n"
    files.write_atomic(files.join(out, WORK, _LOCK), whose.encode())
    yield


def _is_same(file: IO[str], path: Path) -> bool:
    """Tell whether `path` still is the open file: a job that ends removes its lock file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def check_name(out: str) -> None:
    """Refuse a name of an output folder that can be none.

    Raises:
        RecipeError: it is empty, not UTF-8, too long, or a link to itself.
    """
    if not out:
        raise RecipeError("--out is empty; name a folder")
    if not files.is_utf8(out):
        raise RecipeError(f"--out {os.fsencode(out)!r}: the name is not UTF-8; choose another")
    if files.is_local(out):
        try:
            Path(out).resolve().is_dir()
        except (OSError, RuntimeError) as error:  # up to Python 3.12, a loop is a RuntimeError
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise RecipeError(f"--out {out[:200]}: {said}; choose another") from None


def check_output(out: str, kind: str) -> None:
    """Make the output folder, and refuse one that holds something a new dataset would destroy.

    Raises:
        RecipeError: see `check_name`; `out` is a file, a folder with files in which no job of
            Assay's began, or a dataset of another kind; or a folder of shards holds other files
            than shards.
        PlatformError: it cannot be created, or not be listed.
    """
    check_name(out)
    names = _local_names(out) if files.is_local(out) else _remote_names(out)
    # Shards alone are a dataset whose manifest somebody deleted, to have it made again.
    if names and not _is_ours(out, names) and not names <= set(ROLES[kind]):
        raise RecipeError(f"{out}: is not empty and not an Assay dataset; choose another --out")
    for other, roles in ROLES.items():
        if other != kind and names & set(roles):
            raise RecipeError(
                f"{out}: holds a {other} dataset, which a {kind} dataset would replace; choose"
                " another --out"
            )
    for role in ROLES[kind]:
        folder = files.join(out, role)
        for name in sorted(files.names(folder)):
            path = files.join(folder, name)
            if not _SHARD.fullmatch(name) or (files.is_local(path) and not Path(path).is_file()):
                raise RecipeError(
                    f"{path}: is not a shard of Assay; move it out of the dataset's folder"
                )


def _local_names(out: str) -> set[str]:
    """Make a folder; return the names in it."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{out}: is a file; --out must be a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return set(files.names(out))
    except OSError as error:
        raise PlatformError(f"{out}: cannot be created: {error.strerror}") from None


def _remote_names(out: str) -> set[str]:
    """Return the names in a folder; of a large one the first, and those of datasets' folders."""
    if any(sign in out for sign in "*?["):  # Beam lists and deletes by pattern
        raise RecipeError(f"{out}: holds one of * ? [; choose another --out")
    first = {name.split("/")[0] for name in files.names(out, _MOST_LISTED)}
    roles = [role for roles in ROLES.values() for role in roles]
    return first | {role for role in roles if files.names(files.join(out, role), 1)}


def read_dataset(folder: str) -> Manifest:
    """Read and check a dataset's manifest on any file system.

    Raises:
        DatasetError: see `shards.manifest.read_manifest`.
    """
    if files.is_local(folder):
        return read_manifest(folder)
    path = files.join(folder, MANIFEST)
    if not files.exists(path):
        raise no_manifest(folder)
    return decode_manifest(
        files.read_bytes(path), path, f"delete it and run the command that made {folder} again"
    )


def current(out: str, stage_key: str) -> Manifest | None:
    """Return the manifest of `out` if it holds the whole result of the stage with this key.

    Raises:
        DatasetError: there is a manifest, but it cannot be used.
    """
    if files.is_local(out):
        return current_manifest(out, stage_key)
    if not files.exists(files.join(out, MANIFEST)):
        return None
    manifest = read_dataset(out)
    sizes = {
        f"{role}/{name}": size
        for role in ROLES[manifest.content.kind]
        for name, size in stores.listed(files.join(out, role))
    }
    entries = [entry for entries in manifest.content.shards.values() for entry in entries]
    whole = all(sizes.get(entry.path) == entry.bytes for entry in entries)
    return manifest if whole and manifest.stage_key == stage_key else None


def shard_path(folder: str, entry: ShardEntry) -> str:
    """Return where the shard `entry` of the dataset `folder` is."""
    return files.join(folder, *entry.path.split("/"))


def is_whole(folder: str, entry: ShardEntry, *, verify: bool) -> bool:
    """Tell whether a shard file is there with its recorded size and, to `verify`, its hash."""
    place = shard_path(folder, entry)
    if files.size(place) != entry.bytes:
        return False
    return not verify or hashlib.sha256(files.read_bytes(place)).hexdigest() == entry.sha256


def _is_ours(out: str, names: set[str]) -> bool:
    """Tell whether a job of Assay's began or ended here: by what it leaves, not by a name alone."""
    manifest, lock = files.join(out, MANIFEST), files.join(out, WORK, _LOCK)
    if not files.is_local(out):
        has_manifest = files.exists(manifest) and b'"dataset_id"' in files.read_bytes(manifest)
        return has_manifest or files.exists(lock)
    if (
        MANIFEST in names
        and Path(manifest).is_file()
        and b'"dataset_id"' in files.read_bytes(manifest)
    ):
        return True
    if WORK not in names:
        return False
    try:
        inside = {path.name for path in Path(lock).parent.iterdir()}
    except NotADirectoryError:
        return False
    except FileNotFoundError:
        return True  # the job that had it ended just now
    # A job that starts makes the folder and then the lock; one that ends removes the lock last.
    return not inside or _LOCK in inside


def uncommit(out: str) -> None:
    """Remove the manifest before a shard is overwritten, so that no reader sees a mixture."""
    files.delete_files([files.join(out, MANIFEST)])


def commit(out: str, manifest: Manifest) -> None:
    """Remove shard files of an earlier dataset in this folder, then write the manifest."""
    wanted = {entry.path for entries in manifest.content.shards.values() for entry in entries}
    for role in ROLES[manifest.content.kind]:
        names = files.names(files.join(out, role))
        stale = [
            name for name in names if f"{role}/{name}" not in wanted and _SHARD.fullmatch(name)
        ]
        files.delete_files([files.join(out, role, name) for name in stale])
    files.write_atomic(files.join(out, MANIFEST), encode_manifest(manifest))


def collect_garbage(out: str, *, unfinished: bool = False) -> tuple[list[str], int]:
    """Remove half-written files and the work folder; return the files' paths and bytes.

    What killed jobs left in the machine's temporary folder goes too.

    Raises:
        DatasetError: `out` is no folder of Assay's, or its job has not ended and `unfinished` is
            not set.
        PlatformError: a job is writing to it.
    """
    folder = Path(out)
    if not files.is_local(out) or not folder.is_dir():
        raise DatasetError(
            f"{out}: not a folder on this machine; elsewhere a job leaves only its folder {WORK},"
            " which the next run in it removes"
        )
    remove_stale()
    work, done = folder / WORK, (folder / MANIFEST).exists()
    if not done and not work.exists():
        raise DatasetError(f"{out}: not a dataset, and no job of Assay's has begun here")
    if not done and not unfinished:
        raise DatasetError(
            f"{out}: its job has not ended; run it again and it resumes, or give --unfinished to"
            " remove what it has done so far"
        )
    with _lock(out):
        done = (folder / MANIFEST).exists()  # a job may have ended meanwhile
        garbage = [path for path in folder.iterdir() if is_partial(path) and path.is_file()]
        for role in [name for roles in ROLES.values() for name in roles]:
            shards = [path for path in (folder / role).glob("*") if _SHARD.fullmatch(path.name)]
            garbage += [path for path in shards if not done or is_partial(path)]
        garbage += [path for path in work.rglob("*") if path.is_file() and path.name != _LOCK]
        size = sum(path.stat().st_size for path in garbage)
        for path in garbage:
            path.unlink()
        _remove_work(out)
    return sorted(map(str, garbage)), size


def run_facts(started: float, options: JobOptions, **facts: Any) -> dict[str, Any]:
    """Return what is true of this run and must not be hashed: time, host, versions, runner."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "assay": metadata.version("assay-corpus"),
        "code": code_hash(),
        "shipped": shipped_packages(options.runner.beam_args),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "options": msgspec.to_builtins(options),
        **facts,
    }
