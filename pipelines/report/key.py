"""When a report is up to date: a key of all that it is made from, in its last line."""

import hashlib
import re
from importlib import resources
from pathlib import Path

import zstandard

from shards.hashing import stable_hash

_RECORDS = (
    "curated/manifest.json",
    "tokenizer/tokenizer.json",
    "tokens/manifest.json",
    "runs/study.json",
    "runs/run.json",
    "runs/*/run.json",
)
_SEAL = re.compile(rb"<!-- assay report ([0-9a-f]{32}) ([0-9a-f]{64}) -->\n\Z")


def report_key(root: Path) -> str:
    """Return the hash of the chain's records, its name, this package's files and libzstd's version.

    The records hold hashes of everything else, so that a change of any shard changes the key.
    """
    records = sorted({path for pattern in _RECORDS for path in root.glob(pattern)})
    sources = sorted(
        (item.name, hashlib.sha256(item.read_bytes()).hexdigest())
        for item in resources.files(__package__).iterdir()
        if item.name.endswith((".py", ".html", ".css"))
    )
    made_from = [
        (path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in records
    ]
    return stable_hash([root.resolve().name, made_from, sources, zstandard.ZSTD_VERSION])


def seal(html: bytes, key: str) -> bytes:
    """Append the key and the sha256 of the page as an HTML comment."""
    return html + f"<!-- assay report {key} {hashlib.sha256(html).hexdigest()} -->\n".encode()


def is_sealed(path: Path, key: str) -> bool:
    """Tell whether `path` is a whole report with this key."""
    if not path.is_file():
        return False
    data = path.read_bytes()
    found = _SEAL.search(data)
    if found is None or found.group(1).decode() != key:
        return False
    return hashlib.sha256(data[: found.start()]).hexdigest() == found.group(2).decode()
