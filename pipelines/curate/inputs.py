"""Hash the input files, each as one Beam element: their content names every document."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from pipelines import files
from pipelines.beam import beam
from pipelines.commit import WORK
from pipelines.progress import ProgressLog, progress_folder, show_progress
from pipelines.recipe import CurateRecipe
from pipelines.runners import JobOptions, RunnerOptions, run_pipeline
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
    """
    if not files.is_local(out):
        return
    folder = Path(out).resolve()
    for path, _ in found:
        if files.is_local(path) and folder in Path(path).resolve().parents:
            raise InputError(f"{path}: lies in the output folder {out}; choose another --out")


def stamps(found: list[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Return (bytes, mtime in ns) of each local input, (-1, -1) of one that is gone.

    Objects of remote stores are replaced as a whole, and have no stamp.
    """
    result = {}
    for path, _ in found:
        if files.is_local(path):
            try:
                stat = Path(path).stat()
                result[path] = (stat.st_size, stat.st_mtime_ns)
            except OSError:
                result[path] = (-1, -1)
    return result


def hash_inputs(
    found: list[tuple[str, int]], out: str, options: JobOptions
) -> list[tuple[str, int, str]]:
    """Hash the input files: (path, bytes, xxh3-128 hex), in the same order."""
    total = sum(size for _, size in found)
    folder = files.join(out, WORK, "inputs")
    progress = progress_folder(out, "hash")

    def build(pipeline: Any) -> None:
        _ = (
            pipeline
            | "files" >> beam.Create(found, reshuffle=True)
            | "hash" >> beam.ParDo(HashFiles(folder, progress))
        )

    alone = total < _ALONE_BYTES and not options.runner.runner
    runner = RunnerOptions() if alone else options.runner
    with show_progress("hash", total, progress, quiet=options.quiet):
        run_pipeline(runner, build, label="hash")
    return [(path, size, _read_hash(folder, path)) for path, size in found]


class HashFiles(beam.DoFn):
    """(path, bytes) → a small result file with the xxh3-128 (hex) of its content."""

    def __init__(self, folder: str, progress: str) -> None:
        self._folder = folder
        self._progress = progress

    def setup(self) -> None:
        self._log = ProgressLog(self._progress)

    def process(self, element: tuple[str, int]) -> Iterator[str]:
        path, size = element
        digest = xxhash.xxh3_128()
        with files.open_file(path) as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
        files.write_atomic(_hash_path(self._folder, path), digest.hexdigest().encode())
        self._log.add(size, 0)
        yield path


def _hash_path(folder: str, path: str) -> str:
    return files.join(folder, stable_hash(path))


def _read_hash(folder: str, path: str) -> str:
    place = _hash_path(folder, path)
    if not files.exists(place):
        raise ReconcileError(f"{path}: was not hashed: the runner lost an element; run again")
    return files.read_bytes(place).decode()
