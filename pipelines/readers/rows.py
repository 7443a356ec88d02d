"""Record batches: what every reader returns, whatever the format.

| column | type | |
|---|---|---|
| `position` | int64 | decompressed byte of the record's first byte, or row number |
| `id`, `source`, `url` | string, nullable | the record's own |
| `text` | large_string, nullable | null where the record could not be read |
| `error` | string, nullable | the reason why not |
| `detail` | string, nullable | what exactly, and where |
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.readers.kernels import find_blank, unescape

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("url", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("error", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

ERRORS = {
    "bad_json": "the line is not one JSON object",
    "bad_utf8": "the record is not UTF-8, or holds a lone surrogate, which UTF-8 cannot",
    "missing_text": "the text field is missing or null",
    "text_not_string": "the text field is a number, an array or something else",
    "empty_text": "the text is empty or only ASCII white space",
    "record_too_large": "the record is longer than the reader's limit",
    "truncated_gzip": "the file ends inside a gzip member",
    "corrupt_gzip": "gzip data that does not decode, or whose checksum differs",
    "truncated_zstd": "the file ends inside a zstd frame",
    "corrupt_zstd": "zstd data that does not decode, or whose checksum differs",
    "truncated_warc": "the file ends inside a WARC record",
    "corrupt_warc": "bytes that are no WARC record, or a record without a usable length",
    "bad_http": "an HTTP response that cannot be decoded",
    "http_status": "an HTTP response that is not 200 OK: a redirect, an error",
    "not_text": "a web resource that is neither HTML nor plain text",
    "corrupt_parquet": "rows of a Parquet file that do not decode",
}
"""Every reason that a reader gives, and its meaning."""

MAX_ROWS = 1 << 16


class Record(NamedTuple):
    """One record before it becomes a row.

    `text` is bytes-like: UTF-8, or for JSON Lines the escaped string with its quotes; it is empty
    in a bad record. `error` and `detail` are None in a good one.
    """

    id: str | None
    source: str | None
    url: str | None
    text: Any
    error: str | None = None
    detail: str | None = None


def bad_record(reason: str, detail: str) -> Record:
    """Make a record of which nothing could be read."""
    return Record(None, None, None, b"", reason, detail)


def bad_utf8_detail(error: UnicodeDecodeError, position: int) -> str:
    """Say where bytes are not UTF-8; `position` is where they begin in the decompressed file."""
    at = error.start
    return f"{error.reason} at byte {position + at}, in {error.object[max(at - 20, 0) : at + 20]!r}"


def batches(
    records: Iterable[tuple[int, bytes, Record]], batch_bytes: int, *, escaped: bool
) -> Iterator[pa.RecordBatch]:
    """Gather records into record batches of `SCHEMA`.

    Args:
        records: position, the record's raw bytes (to say where bad UTF-8 stands), the record.
        batch_bytes: raw bytes after which a batch is full (or after `MAX_ROWS` rows).
        escaped: texts are JSON strings with quotes.
    """
    gathered: list[tuple[int, bytes, Record]] = []
    size = 0
    for item in records:
        gathered.append(item)
        size += len(item[1])
        if size >= batch_bytes or len(gathered) >= MAX_ROWS:
            yield _batch(gathered, escaped=escaped)
            gathered, size = [], 0
    if gathered:
        yield _batch(gathered, escaped=escaped)


def _batch(gathered: list[tuple[int, bytes, Record]], *, escaped: bool) -> pa.RecordBatch:
    positions, raw, records = zip(*gathered, strict=True)
    ids, sources, urls, texts, errors, details = map(list, zip(*records, strict=True))
    buffer = bytearray().join(texts)
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    if escaped:
        unescape(np.frombuffer(buffer, np.uint8), offsets)

    def utf8_detail(row: int) -> str:
        try:
            raw[row].decode()
        except UnicodeDecodeError as error:
            return bad_utf8_detail(error, positions[row])
        return ""

    text = check_texts(buffer, offsets, errors, details, utf8_detail)
    return pa.record_batch(
        [
            pa.array(positions, pa.int64()),
            *(pa.array(column, pa.string()) for column in (ids, sources, urls)),
            text,
            *(pa.array(column, pa.string()) for column in (errors, details)),
        ],
        schema=SCHEMA,
    )


def check_texts(
    data: Any,
    offsets: npt.NDArray[np.int64],
    errors: list[str | None],
    details: list[str | None],
    utf8_detail: Any,
) -> pa.Array:
    """Make the text column; add `bad_utf8` and `empty_text` to errors and details, in place.

    Args:
        data: writable buffer of UTF-8, if it is UTF-8.
        offsets: int64 (n + 1) into it.
        errors: reason of each row or None; a row that has one gets a null text.
        details: as errors.
        utf8_detail: function of a row that says where its bytes are not UTF-8.
    """
    n = len(errors)
    array = pa.LargeStringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        view = memoryview(data)
        for row in range(n):
            try:
                str(view[offsets[row] : offsets[row + 1]], "utf-8")
            except UnicodeDecodeError:
                errors[row], details[row] = "bad_utf8", utf8_detail(row)
    blank = np.empty(n, np.bool_)
    find_blank(np.frombuffer(data, np.uint8), offsets, blank)
    for row in np.flatnonzero(blank).tolist():
        if errors[row] is None:
            count = int(offsets[row + 1] - offsets[row])
            errors[row] = "empty_text"
            details[row] = f"the text has {count} bytes, all white space" if count else None
    if not any(errors):
        return array
    # Rebuilt, so that no bytes of bad rows stay behind their nulls.
    view = memoryview(data)
    texts = [
        None if error else bytes(view[offsets[row] : offsets[row + 1]])
        for row, error in enumerate(errors)
    ]
    return pa.array(texts, pa.large_binary()).cast(pa.large_string())
