"""What lists of the user's own share: which file it is, and whether it is still the same."""

import hashlib
from pathlib import Path

_READ_BYTES = 1 << 20


def stamp(path: str) -> tuple[int, int]:
    """Return a local file's bytes and time of change: another one under its path is read anew."""
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, hex.

    Raises:
        InputError: it cannot be opened.
    """
    from pipelines import files  # it brings Beam, which most processes do not need

    digest = hashlib.sha256()
    with files.open_file(path) as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
