"""Local files that appear whole or not at all."""

import os
import uuid
from pathlib import Path

_PARTIAL = ".partial-"


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` through a temporary file, fsync and rename; make parent folders.

    A reader, or a rerun after kill -9, sees the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{_PARTIAL}{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Tell whether `path` is what a killed `write_atomic` left behind; it may be deleted."""
    return _PARTIAL in path.name
