"""How a file is cut into ranges, the units of work of the scan.

Ranges depend on the file and `range_bytes` only; the records that come out do not depend on
either's choice of cuts.
"""

from itertools import pairwise
from typing import Any

import msgspec

from pipelines.readers.formats import Compression, OpenFile, detect
from pipelines.readers.jsonl import Fields
from pipelines.readers.parquet import open_parquet
from pipelines.readers.zstd import walk_frames
from shards.errors import InputError

OPEN_END = 2**63 - 1
"""The end of a range that goes to the end of a compressed file, wherever that is."""


_WHOLE = ("text", "warc")
"""Formats of which a reader must see the whole file."""


class Range(msgspec.Struct, frozen=True):
    """A span of one file: records whose position lies in `[start, end)` belong to it.

    Attributes:
        path: the file.
        format: one of `FORMATS`, never `auto`.
        compression: `none`, `gzip` or `zstd`.
        start: decompressed byte, or row number for Parquet.
        end: the byte or row behind the last; `OPEN_END` where a compressed file ends by itself.
        offset: where reading begins: the byte of the file at which a zstd frame begins whose
            content begins at `start - 1`, or the index of a Parquet row group. 0 otherwise.
        bytes: bytes of the file that the range stands for, for progress and scheduling.
    """

    path: str
    format: str
    compression: Compression
    start: int
    end: int
    offset: int = 0
    bytes: int = 0


def plan_ranges(
    path: str,
    format: str,  # noqa: A002 - the recipe's own word
    size: int,
    open_file: OpenFile,
    range_bytes: int,
    *,
    fields: Fields | None = None,
) -> list[Range]:
    """Cut a file into ranges of about `range_bytes` decompressed bytes.

    Plain JSONL and text-lines are cut anywhere, multi-frame zstd with content sizes at frames,
    Parquet at row groups; gzip, any other zstd file, `text` and `warc` files are one range.

    Args:
        path: the file.
        format: `auto` or one of `FORMATS`.
        size: its bytes.
        open_file: opens it; at most headers and footers are read.
        range_bytes: decompressed bytes of a range, at least 1.
        fields: names of the columns, checked here for Parquet.

    Raises:
        InputError: unknown format, first bytes that do not fit the name, a zstd file that needs
            a dictionary or too large a window, a Parquet file without footer or text column.
    """
    if range_bytes < 1:
        raise InputError(f"range_bytes = {range_bytes}: must be at least 1")
    kind, compression = detect(path, format, size, open_file)
    if kind == "parquet":
        return _parquet_ranges(path, size, open_file, range_bytes, fields or Fields())
    if compression == "zstd":
        return _zstd_ranges(path, kind, size, open_file, range_bytes)
    if compression == "gzip":
        return [Range(path, kind, compression, 0, OPEN_END, bytes=size)]
    if kind in _WHOLE:
        return [Range(path, kind, compression, 0, OPEN_END, bytes=size)]
    return [
        Range(path, kind, "none", start, end := min(start + range_bytes, size), bytes=end - start)
        for start in range(0, size, range_bytes)
    ]


def _zstd_ranges(
    path: str, kind: str, size: int, open_file: OpenFile, range_bytes: int
) -> list[Range]:
    """Cut at frames. A range begins one byte into its first frame, because a reader looks at the
    byte before its range: so it decodes no byte of the frame before.
    """
    with open_file(path) as file:
        frames = walk_frames(path, file, size)
    cuts = [(0, 0)]  # (range start, offset)
    position = since = 0
    if kind not in _WHOLE and all(frame.content_bytes is not None for frame in frames[:-1]):
        for frame in frames:
            if since >= range_bytes:
                cuts.append((position + 1, frame.offset))
                since = 0
            position += frame.content_bytes or 0
            since += frame.content_bytes or 0
    cuts.append((OPEN_END, size))
    return [
        Range(path, kind, "zstd", start, end, offset=offset, bytes=next_offset - offset)
        for (start, offset), (end, next_offset) in pairwise(cuts)
    ]


def _parquet_ranges(
    path: str, size: int, open_file: OpenFile, range_bytes: int, fields: Fields
) -> list[Range]:
    with open_file(path) as file:
        metadata: Any = open_parquet(path, file, fields).metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    ranges = []
    row = start = first = since = 0
    total = sum(group_bytes for _, group_bytes in sizes) or 1
    for index, (rows, group_bytes) in enumerate(sizes):
        row += rows
        since += group_bytes
        if row > start and (since >= range_bytes or index == len(sizes) - 1):
            share = size * since // total
            ranges.append(Range(path, "parquet", "none", start, row, offset=first, bytes=share))
            start, first, since = row, index + 1, 0
    return ranges
