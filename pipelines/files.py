"""Every path of a pipeline: local, or through Beam gs://, s3://, hdfs:// (see `stores`).

Writes are atomic: on a disk a temporary name, then a rename. A bundle that Beam runs twice writes
the same bytes to the same place twice, which changes nothing. A *hashed* file ends in the xxh3-128
of what is before: a run that goes on where another was killed takes up none that was damaged
meanwhile.
"""

import contextlib
import glob
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO, cast

from pipelines import stores
from pipelines.beam import beam
from shards.atomic import PARTIAL
from shards.errors import CorruptError, InputError, PlatformError
from shards.hashing import xxh128

_HASH_BYTES = 16


def is_local(path: str) -> bool:
    """Tell whether `path` is on the local file system (no scheme).

    Raises:
        InputError: a URL of the local file system: it would be another name for the same file.
    """
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() == "file":
        raise InputError(f"{path}: is a file here; write its path, {rest}")
    return not separator


def is_utf8(path: str) -> bool:
    """Tell whether a path, as Python has it from the file system, is UTF-8."""
    return path == path.encode(errors="replace").decode()


def join(folder: str, *parts: str) -> str:
    """Join path parts by the rules of the file system that `folder` is on.

    Raises:
        InputError: Beam does not know it here, or not how to get at it.
    """
    if not is_local(folder):
        return cast(str, stores.system(folder).join(folder, *parts))
    return cast(str, beam.io.filesystems.FileSystems.join(folder, *parts))


def open_file(path: str) -> BinaryIO:
    """Open a file for seekable binary reading, without decompression.

    Raises:
        InputError: the file cannot be opened.
    """
    if is_local(path):
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {error.strerror}") from None
    store = stores.system(path)
    try:
        return cast(BinaryIO, store.open(path, compression_type=stores.UNCOMPRESSED))
    except Exception as error:  # each file system raises its own kind
        raise InputError(f"{path}: cannot be opened: {error}") from None


def read_bytes(path: str) -> bytes:
    """Read a whole file."""
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Tell whether a file exists (of a remote folder: only on hdfs://)."""
    return Path(path).exists() if is_local(path) else stores.exists(path)


def size(path: str) -> int:
    """Return a file's bytes, -1 if it does not exist."""
    if not is_local(path):
        return stores.size(path)
    try:
        return Path(path).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def names(folder: str, most: int | None = None) -> list[str]:
    """Return the names in a folder, none where it is not there; remotely, `most` of them.

    On a store of objects a name is the path below the folder: it may hold a slash.

    Raises:
        PlatformError: it cannot be listed.
    """
    if is_local(folder):
        try:
            return [path.name for path in Path(folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise PlatformError(f"{folder}: cannot be listed: {error.strerror}") from None
    return [name for name, _ in stores.listed(folder, most)]


def make_folder(path: str) -> None:
    """Create a folder and its parents; fine if it is there."""
    with contextlib.suppress(OSError, FileExistsError):
        beam.io.filesystems.FileSystems.mkdirs(path)


def write_atomic(path: str, data: bytes | memoryview) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        PlatformError: the disk is full, read-only or gone.
    """
    whole = memoryview(data).cast("B")
    if not is_local(path):
        stores.write(path, whole)
        return
    systems = beam.io.filesystems.FileSystems
    folder, _ = systems.split(path)
    partial = f"{path}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        make_folder(folder)
        with systems.create(partial, compression_type=stores.UNCOMPRESSED) as file:
            file.write(whole)
        Path(partial).replace(path)
    except BaseException as error:
        with contextlib.suppress(Exception):
            delete(partial)
        if isinstance(error, OSError):
            raise PlatformError(
                f"{path}: cannot be written: {error.strerror or error}; when that is mended, run"
                " the same command again and it resumes"
            ) from None
        raise


def write_hashed(path: str, data: bytes | memoryview) -> None:
    """Write a file as `write_atomic` does, and the hash of its bytes behind them."""
    write_atomic(path, b"".join((data, xxh128(data))))


def read_hashed(path: str) -> memoryview | None:
    """Return what `write_hashed` wrote; None where there is no such file, or not as it was."""
    if not exists(path):
        return None
    whole = memoryview(read_bytes(path))
    data = whole[:-_HASH_BYTES]
    return data if xxh128(data) == whole[-_HASH_BYTES:] else None


def need_hashed(path: str, made_in: str) -> memoryview:
    """Return what `write_hashed` wrote.

    Args:
        path: the file's.
        made_in: the folder to delete so that it is made again, for the error message.

    Raises:
        CorruptError: there is no such file, or not as it was.
    """
    data = read_hashed(path)
    if data is None:
        raise CorruptError(
            f"{path}: is missing, or its bytes do not match their hash; delete {made_in} and run"
            " again"
        )
    return data


def stands(path: str) -> bool:
    """Tell whether a hashed file can be taken up: is there and, on a local disk, as it was.

    A store of objects has hashes of its own, and what is there may be large: the worker that needs
    a file looks at its hash, and the command only whether it is there.
    """
    return read_hashed(path) is not None if is_local(path) else exists(path)


def delete(path: str) -> None:
    """Delete a file or a folder with all that is in it; fine if it is not there."""
    if is_local(path):
        # Beam's delete takes globs: a folder named `out[1]` would lose what `out1` holds.
        local = Path(path)
        if local.is_dir():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
        return
    stores.delete(path)


def delete_files(paths: list[str]) -> None:
    """Delete files of one file system; fine if they are not there."""
    if paths and not is_local(paths[0]):
        stores.delete_files(paths)
        return
    for path in paths:
        Path(path).unlink(missing_ok=True)


def expand(patterns: list[str], key: str = "input.paths") -> list[tuple[str, int]]:
    """Expand paths and globs to (path, bytes) of files, each once, in the order of the patterns.

    `key` is where the recipe names them, for error messages.

    A local path that names a file is that file, whatever brackets are in its name. Two spellings
    of one local file are one file; the first is kept.

    Raises:
        InputError: a pattern that matches no file, a folder, or a name that is not UTF-8.
    """
    found: dict[str, tuple[str, int]] = {}
    for pattern in patterns:
        matched = _expand_local(pattern, key) if is_local(pattern) else _expand_remote(pattern)
        if not matched:
            raise InputError(f"{pattern}: no such file ({key}; relative to the folder you are in)")
        for path, size in sorted(matched):
            found.setdefault(os.path.realpath(path) if is_local(path) else path, (path, size))
    return list(found.values())


def _expand_local(pattern: str, key: str) -> list[tuple[str, int]]:
    if not pattern:
        raise InputError(f"{key} holds an empty name; name a file or a pattern")
    if Path(pattern).is_dir():
        raise InputError(
            f"{pattern}: is a folder; name the files in it, e.g. {pattern.rstrip('/')}/*.jsonl"
            f" ({key})"
        )
    names = [pattern]
    if not Path(pattern).is_file():
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
    for name in names:
        if not is_utf8(name):
            raise InputError(f"{os.fsencode(name)!r}: the file's name is not UTF-8; rename it")
    return [(name, Path(name).stat().st_size) for name in names if Path(name).is_file()]


def _expand_remote(pattern: str) -> list[tuple[str, int]]:
    store = stores.system(pattern)
    try:
        (match,) = store.match([pattern])
    except Exception as error:  # each file system raises its own kind
        raise InputError(f"{pattern}: cannot be listed: {error}") from None
    found = [(item.path, int(item.size_in_bytes)) for item in match.metadata_list]
    return [(path, size) for path, size in found if not path.endswith("/")]  # a console's folder
