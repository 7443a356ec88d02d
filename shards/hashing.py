"""Hashes and canonical bytes: the one place that decides what "the same" means.

xxh3-128 (fast, not adversarial) names documents and finds flipped bits; sha256 names whole files
and datasets, where somebody may want to forge one.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import xxhash

BLOCK_BYTES = 1 << 20
"""Bytes per verified block (1 MiB): a flipped bit is located to within one block."""

_READ_BYTES = 8 << 20


def canonical_json(value: Any) -> bytes:
    """Encode plain data (msgspec Structs allowed) as UTF-8 JSON with sorted keys, no spaces."""
    return msgspec.json.encode(value, order="sorted")


def stable_hash(value: Any) -> str:
    """Hash plain data: the first 32 hex digits of the sha256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:32]


def xxh128(data: bytes | memoryview) -> bytes:
    """Return the 16-byte xxh3-128 digest (big-endian canonical form) of `data`."""
    return xxhash.xxh3_128_digest(data)


def block_hashes(data: bytes | memoryview) -> list[str]:
    """Return the xxh3-128 hex digest of each `BLOCK_BYTES` of `data` (the last is shorter)."""
    view = memoryview(data)
    return [
        xxhash.xxh3_128_hexdigest(view[start : start + BLOCK_BYTES])
        for start in range(0, len(view), BLOCK_BYTES)
    ]


def file_xxh128(path: Path) -> bytes:
    """Return the 16-byte xxh3-128 digest of a local file, read in 8 MiB steps."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.digest()
