"""Reading one range: from a file to record batches."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipelines.readers.formats import OpenFile
from pipelines.readers.html import page_text
from pipelines.readers.jsonl import BOM, Fields, line_parser
from pipelines.readers.lines import lines
from pipelines.readers.parquet import read_rows
from pipelines.readers.ranges import Range
from pipelines.readers.rows import Record, bad_record, batches
from pipelines.readers.streams import Gap, Piece, gzip_pieces, plain_pieces
from pipelines.readers.warc import RECORD_MAGIC, warc_records
from pipelines.readers.zstd import zstd_pieces

BATCH_BYTES = 8 << 20
MAX_RECORD_BYTES = 256 << 20

_Item = tuple[int, bytes, Record]


def read_range(
    range_: Range,
    open_file: OpenFile,
    fields: Fields | None = None,
    *,
    batch_bytes: int = BATCH_BYTES,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Read the records whose position lies in a range, in order, as batches of `rows.SCHEMA`.

    Args:
        range_: from `plan_ranges`.
        open_file: opens its path.
        fields: names of JSON keys or Parquet columns.
        batch_bytes: raw bytes of a batch (about; one record is never split).
        max_record_bytes: a larger record becomes a `record_too_large` error.

    What cannot be read is a row with `error` and `detail`, never an exception and never silence:
    the records before the damage come first, then one error row at the damaged record's position.

    Raises:
        InputError: a Parquet file that changed since it was planned.
        RecipeError: `fields` names one key for the text and something else.
    """
    fields = fields or Fields()
    with open_file(range_.path) as file:
        if range_.format == "parquet":
            yield from read_rows(
                range_.path,
                file,
                fields,
                first_group=range_.offset,
                start=range_.start,
                end=range_.end,
                batch_bytes=batch_bytes,
                max_bytes=max_record_bytes,
            )
            return
        if range_.format == "warc":
            items = warc_records(lambda: _pieces(file, range_), max_record_bytes, page_text)
            yield from batches(items, batch_bytes, escaped=False)
            return
        pieces = _pieces(file, range_)
        if range_.format == "text":
            yield from batches(_whole(pieces, max_record_bytes), batch_bytes, escaped=False)
        elif range_.format == "text-lines":
            items = _text_lines(pieces, range_, max_record_bytes)
            yield from batches(items, batch_bytes, escaped=False)
        else:
            items = _json_lines(pieces, range_, fields, max_record_bytes)
            yield from batches(items, batch_bytes, escaped=True)


def _pieces(file: BinaryIO, range_: Range) -> Iterator[Piece]:
    """Open the stream at the byte before the range, or at 0."""
    before = max(range_.start - 1, 0)
    file.seek(0)
    is_warc = range_.format == "warc"
    if range_.compression == "gzip":
        return gzip_pieces(file, RECORD_MAGIC if is_warc else b"")
    if range_.compression == "zstd":
        return zstd_pieces(file, range_.offset, before, resume_anywhere=is_warc)
    return plain_pieces(file, before)


def _json_lines(
    pieces: Iterator[Piece], range_: Range, fields: Fields, max_bytes: int
) -> Iterator[_Item]:
    parse = line_parser(fields)
    for position, line in lines(pieces, range_.start, range_.end, max_bytes):
        if isinstance(line, Gap):
            yield position, b"", bad_record(line.reason, line.detail)
        elif (record := parse(position, line)) is not None:
            yield position, line, record


def _text_lines(pieces: Iterator[Piece], range_: Range, max_bytes: int) -> Iterator[_Item]:
    for position, line in lines(pieces, range_.start, range_.end, max_bytes):
        if isinstance(line, Gap):
            yield position, b"", bad_record(line.reason, line.detail)
            continue
        text = line.removesuffix(b"\r")
        if position == 0:
            text = text.removeprefix(BOM)
        if text and not text.isspace():
            yield position, line, Record(None, None, None, text)


def _whole(pieces: Iterator[Piece], max_bytes: int) -> Iterator[_Item]:
    """One document a file, at position 0; damage anywhere makes the whole document bad."""
    parts, size = [], 0
    for piece in pieces:
        if isinstance(piece, Gap):
            yield 0, b"", bad_record(piece.reason, piece.detail)
            return
        parts.append(piece)
        size += len(piece)
        if size > max_bytes:
            detail = f"the document is longer than {max_bytes} bytes"
            yield 0, b"", bad_record("record_too_large", detail)
            return
    raw = b"".join(parts)
    yield 0, raw, Record(None, None, None, raw.removeprefix(BOM))
