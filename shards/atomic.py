"""Local files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = ".partial-"
"""Stands in the name of a file that is not written to its end."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file; when the block ends well, fsync it and rename it to `path`.

    A reader, or a rerun after kill -9, sees the old file or the new one, never a part. Parent
    folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def is_partial(path: Path) -> bool:
    """Tell whether `path` is what a killed `write_atomic` left behind; it may be deleted."""
    return PARTIAL in path.name
