"""Hash the input files, each as one Beam element: their content names every document."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash
from msgspec.structs import replace

from pipelines import files
from pipelines.beam import beam
from pipelines.commit import WORK, check_name
from pipelines.curate.hash_cache import (
    HashedFile,
    hashed_file,
    read_record,
    stamp,
    still_holds,
)
from pipelines.progress import ProgressLog, progress_folder, show_progress
from pipelines.recipe import CurateRecipe
from pipelines.runners import JobOptions, run_pipeline
from pipelines.sidecars import write_sidecar
from shards.errors import InputError, ReconcileError
from shards.hashing import stable_hash

_READ_BYTES = 8 << 20

_ALONE_BYTES = 1 << 30
"""Below this, hashing here is done before worker processes would have started."""


def find_inputs(recipe: CurateRecipe) -> list[tuple[str, int]]:
    """Find the input files: (path, bytes), in the order of `input.paths`.

    Raises:
        InputError: a pattern without a file, or nothing but empty files.
    """
    found = files.expand(recipe.input.paths)
    if not any(size for _, size in found):
        names = ", ".join(path for path, _ in found[:3])
        raise InputError(f"{names}: empty (0 bytes); there is nothing to read")
    return found


def check_apart(found: list[tuple[str, int]], out: str) -> None:
    """Refuse inputs that lie in the output folder, where the job removes what is not its own.

    Raises:
        InputError: naming the first such file.
        RecipeError: `out` can be no folder, see `check_name`.
    """
    check_name(out)
    if files.is_local(out):
        folder = Path(out).resolve()
        inside = (
            path
            for path, _ in found
            if files.is_local(path) and folder in Path(path).resolve().parents
        )
    else:  # by name: to a store of objects, `a//b` is not `a/b`
        inside = (path for path, _ in found if path.startswith(f"{out.rstrip('/')}/"))
    for path in inside:
        raise InputError(f"{path}: lies in the output folder {out}; choose another --out")


def stamps(paths: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """Return the stamp of each local file; objects of remote stores are replaced as a whole."""
    return {path: stamp(path) for path in paths if files.is_local(path)}


def hash_inputs(
    found: list[tuple[str, int]],
    out: str,
    options: JobOptions,
    known: Mapping[str, HashedFile] | None = None,
) -> dict[str, HashedFile]:
    """Hash the input files, in the same order; those whose hash still holds are not read.

    Args:
        found: (path, bytes) of each input.
        out: the output folder, whose work folder keeps the hashes for a run that goes on.
        options: how to run; with `rehash` every file is read, whatever is known of it.
        known: path → what an earlier dataset in `out` says.

    Returns:
        Path → hash, and what the file system said of the file.

    Raises:
        InputError: a file that cannot be read.
        ReconcileError: the runner lost one.
    """
    folder = files.join(out, WORK, "inputs")
    done = {} if options.rehash else _still_known(found, folder, known or {})
    todo = [(path, size) for path, size in found if path not in done]
    if todo:
        _hash(todo, folder, progress_folder(out, "hash"), options)
    return {path: done.get(path) or _read_hash(folder, path) for path, _ in found}


def plain_hashes(hashed: Mapping[str, HashedFile]) -> list[tuple[str, int, str]]:
    """Return (path, bytes, xxh3-128 hex) of each input, as a plan takes them."""
    return [(path, record.bytes, record.hash) for path, record in hashed.items()]


def _still_known(
    found: list[tuple[str, int]], folder: str, known: Mapping[str, HashedFile]
) -> dict[str, HashedFile]:
    done = {}
    for path, _ in found:
        record = read_record(_hash_path(folder, path)) or known.get(path)
        if record and still_holds(record, stamp(path)):
            done[path] = record
    return done


def _hash(todo: list[tuple[str, int]], folder: str, progress: str, options: JobOptions) -> None:
    total = sum(size for _, size in todo)

    def build(pipeline: Any) -> None:
        _ = (
            pipeline
            | "files" >> beam.Create(todo, reshuffle=True)
            | "hash" >> beam.ParDo(HashFiles(folder, progress))
        )

    alone = total < _ALONE_BYTES and not options.runner.runner
    runner = replace(options.runner, workers=1) if alone else options.runner
    with show_progress(
        "hash", total, progress, unit="file(s)", quiet=options.quiet, events=options.events
    ):
        run_pipeline(runner, build, label="hash")


class HashFiles(beam.DoFn):
    """(path, bytes) → a small result file, a `HashedFile` with the xxh3-128 of its content."""

    def __init__(self, folder: str, progress: str) -> None:
        self._folder = folder
        self._progress = progress

    def setup(self) -> None:
        self._log = ProgressLog(self._progress)

    def process(self, element: tuple[str, int]) -> Iterator[str]:
        path, size = element
        before = stamp(path)
        digest = xxhash.xxh3_128()
        read = 0
        with files.open_file(path) as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                read += len(chunk)
        record = hashed_file(digest.hexdigest(), read, before)
        write_sidecar(_hash_path(self._folder, path), record)
        self._log.add(size, 1)
        yield path


def _hash_path(folder: str, path: str) -> str:
    return files.join(folder, stable_hash(path))


def _read_hash(folder: str, path: str) -> HashedFile:
    record = read_record(_hash_path(folder, path))
    if record is None:
        raise ReconcileError(f"{path}: was not hashed: the runner lost an element; run again")
    return record
