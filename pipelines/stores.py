"""Remote paths through Beam: stores of objects (gs://, s3://, azfs://), and hdfs:// with folders.

What Beam's file systems have in common is less than their interface. On a store of objects,
`exists` knows objects and no folders; `delete` takes patterns on one store and plain names on
another; each takes a name that ends in "/" for all that is below it, but one only logs what failed.
HDFS renames onto no file that is there, lists one level, and deletes a folder with all in it.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipelines.beam import beam
from shards.atomic import PARTIAL
from shards.errors import AssayError, InputError, PlatformError

UNCOMPRESSED = beam.io.filesystem.CompressionTypes.UNCOMPRESSED

_BATCH = 1000
"""Names in one call of `delete`: what S3 takes in one request."""

_TRIES = 3


def use_options(arguments: list[str]) -> None:
    """Let remote paths be opened as Beam's arguments say: hosts, users, keys and endpoints.

    Beam tells its file systems of them as it makes a pipeline; a job looks at paths before that.
    """
    options = beam.options.pipeline_options.PipelineOptions(arguments)
    beam.io.filesystems.FileSystems.set_options(options)


def system(path: str) -> Any:
    """Return Beam's file system for a path.

    S3 and HDFS refuse to work without options, even where those would say nothing.

    Raises:
        InputError: Beam does not know it here, or not how to get at it.
    """
    _check_known(path)
    systems = beam.io.filesystems.FileSystems
    of_worker = beam.options.value_provider.RuntimeValueProvider.runtime_options
    if systems._pipeline_options is None and of_worker is None:
        use_options([])
    try:
        return systems.get_filesystem(path)
    except Exception as error:  # no client installed, or no host said
        raise InputError(f"{path}: Beam cannot get at it: {error}") from None


def _check_known(path: str) -> None:
    systems = beam.io.filesystem.FileSystem.get_all_subclasses()
    known = {system.scheme() for system in systems} - {None}
    scheme = path.partition("://")[0]
    if scheme not in known:
        raise InputError(
            f"{path}: Beam knows no file system {scheme}:// here, but {', '.join(sorted(known))};"
            " others may need an extra of apache-beam, such as apache-beam[gcp]"
        )


@contextmanager
def naming(path: str, done: str) -> Iterator[None]:
    """Turn whatever a store raises into an error that names the path.

    Raises:
        PlatformError: each file system raises its own kind.
    """
    try:
        yield
    except AssayError:
        raise
    except Exception as error:
        raise PlatformError(
            f"{path}: cannot be {done}: {error}; when that is mended, run the same command again"
            " and it resumes"
        ) from None


def exists(path: str) -> bool:
    """Tell whether an object is there (on hdfs://: a file or a folder)."""
    with naming(path, "looked up"):
        return bool(system(path).exists(path))


def size(path: str) -> int:
    """Return an object's bytes, -1 if it is not there."""
    with naming(path, "looked up"):
        store = system(path)
        return int(store.metadata(path).size_in_bytes) if store.exists(path) else -1


def listed(folder: str, most: int | None = None) -> list[tuple[str, int]]:
    """List a folder: (name relative to it, bytes) of all, or of `most`.

    On a store of objects that is everything below it; on hdfs:// its own entries, folders too.
    """
    found = _matched(folder, most and most + 1)
    return [(name, size) for name, size in found if name][:most]  # "": a console's folder


def _matched(folder: str, most: int | None) -> list[tuple[str, int]]:
    base = folder.rstrip("/") + "/"
    with naming(folder, "listed"):
        store = system(folder)
        if store.has_dirs() and not store.exists(folder):
            return []
        (match,) = store.match([f"{base}**"], [most])
    return [(item.path[len(base) :], int(item.size_in_bytes)) for item in match.metadata_list]


def delete(path: str) -> None:
    """Delete an object or a folder with all that is in it; fine if it is not there."""
    with naming(path, "deleted"):
        store = system(path)
        if store.exists(path):
            store.delete([path])
        if not store.has_dirs():
            _delete_below(store, path)


def _delete_below(store: Any, folder: str) -> None:
    """Delete all objects below a folder: Beam does it in batches, and holds their names.

    So it is done one inner folder after the other; and looked at, since a failure may be silent.
    """
    before = ""
    while found := _matched(folder, 1):
        first = f"{folder.rstrip('/')}/{found[0][0]}"
        if first == before:
            raise PlatformError(
                f"{first}: cannot be deleted: it is still there; may this account delete objects?"
            )
        store.delete([store.split(first)[0] + "/"])
        before = first


def delete_files(paths: list[str]) -> None:
    """Delete objects, in batches; fine if they are not there."""
    for start in range(0, len(paths), _BATCH):
        with naming(paths[start], "deleted"):
            system(paths[start]).delete(paths[start : start + _BATCH])


def write(path: str, data: memoryview) -> None:
    """Write an object or a file so that it appears whole or not at all.

    An object appears when it is closed, so it is written under its own name. All of it goes to Beam
    in one call: what fails before it is closed leaves the object of before.
    """
    with naming(path, "written"):
        store = system(path)
        if store.has_dirs():
            _write_renamed(store, path, data)
        else:
            _create(store, path, data)


def _create(store: Any, path: str, data: memoryview) -> None:
    with store.create(path, compression_type=UNCOMPRESSED) as file:
        file.write(data)


def _write_renamed(store: Any, path: str, data: memoryview) -> None:
    """Write by a temporary name: a file that HDFS is writing can be seen."""
    with suppress(OSError):  # it is there
        store.mkdirs(store.split(path)[0])
    partial = f"{path}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        _create(store, partial, data)
        for _ in range(_TRIES):
            try:
                store.rename([partial], [path])
            except OSError:
                if not store.exists(path):
                    raise
            else:
                return
            if _holds(store, path, data):  # a bundle run twice: there is no moment without it
                break
            store.delete([path])
        else:
            raise PlatformError(f"{path}: cannot be written: another job writes it too")
        store.delete([partial])
    except BaseException:
        with suppress(Exception):
            store.delete([partial])
        raise


def _holds(store: Any, path: str, data: memoryview) -> bool:
    if store.metadata(path).size_in_bytes != data.nbytes:
        return False
    with store.open(path, compression_type=UNCOMPRESSED) as file:
        return bool(file.read() == data)
