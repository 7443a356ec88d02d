"""Which format a file has: by its suffix, checked against its first bytes.

| format | suffixes | a record |
|---|---|---|
| `jsonl` | `.jsonl`, `.ndjson`, `.json` | a line that is not blank |
| `text` | `.txt`, `.md` | the whole file |
| `text-lines` | none: ask for it | a line that is not blank |
| `parquet` | `.parquet` | a row |
| `warc` | `.warc`, `.wet` | a web page |

All but Parquet may be compressed: `.gz` or `.zst` follows the suffix.
"""

from collections.abc import Callable
from typing import BinaryIO, Literal

from shards.errors import InputError

OpenFile = Callable[[str], BinaryIO]
"""Opens a path for reading: binary, seekable, closed by whoever called it."""

Compression = Literal["none", "gzip", "zstd"]

FORMATS = ("jsonl", "text", "text-lines", "parquet", "warc")

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".md": "text",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"


def detect(path: str, format_: str, size: int, open_file: OpenFile) -> tuple[str, Compression]:
    """Return the format (one of `FORMATS`) and the compression of a file.

    Args:
        path: the file's name; its suffix decides the compression, and with `auto` the format.
        format_: `auto` or one of `FORMATS`.
        size: the file's bytes.
        open_file: opens `path`; only the first four bytes are read.

    Raises:
        InputError: unknown format or suffix, or first bytes that belong to another format.
    """
    name = path.rsplit("/", 1)[-1].lower()
    stem, compression = name, _COMPRESSIONS.get(_suffix(name), "none")
    if compression != "none":
        stem = name[: -len(_suffix(name))]
    if format_ == "auto":
        format_ = _BY_SUFFIX.get(_suffix(stem), "")
        if not format_:
            raise InputError(
                f"{path}: unknown format; the known suffixes are {', '.join(_BY_SUFFIX)}, all but"
                " .parquet also with .gz or .zst; or name the format: input.format ="
                f" {' | '.join(repr(known) for known in FORMATS)}"
            )
    elif format_ not in FORMATS:
        raise InputError(
            f"{path}: unknown format {format_!r}; the known formats are auto, {', '.join(FORMATS)}"
        )
    if format_ == "parquet" and compression != "none":
        raise InputError(f"{path}: compressed Parquet; decompress it (Parquet compresses inside)")
    with open_file(path) as file:
        _check_magic(path, file.read(4), size, format_, compression)
    return format_, compression


def is_zstd_magic(head: bytes) -> bool:
    """Tell whether four bytes begin a zstd frame or a skippable frame (RFC 8878, 3.1)."""
    return head == ZSTD_MAGIC or (head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if dot >= 0 else ""


def _check_magic(path: str, head: bytes, size: int, format_: str, compression: str) -> None:
    """Compare the first bytes with what the name says; fewer than four prove nothing."""
    if format_ == "parquet":
        expected = "parquet"
        if len(head) < 4:
            raise InputError(f"{path}: not a Parquet file: {size} bytes")
    elif len(head) < 4:
        return
    else:
        expected = compression
    found = "none"
    if head[:2] == GZIP_MAGIC:
        found = "gzip"
    elif is_zstd_magic(head):
        found = "zstd"
    elif head == PARQUET_MAGIC:
        found = "parquet"
    if found != expected:
        says = "uncompressed text" if expected == "none" else expected
        is_ = "neither gzip, zstd nor Parquet" if found == "none" else found
        raise InputError(
            f"{path}: the name or input.format says {says}, but the file begins with {head!r}"
            f" ({is_}); rename it or make it again"
        )
