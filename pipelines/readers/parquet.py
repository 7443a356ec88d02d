"""Parquet: one record a row; the row's number is its position."""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.readers.jsonl import Fields
from pipelines.readers.rows import MAX_ROWS, SCHEMA, check_texts
from shards.errors import InputError

_DAMAGE = (pa.ArrowException, OSError, ValueError)


def open_parquet(path: str, file: BinaryIO, fields: Fields) -> pq.ParquetFile:
    """Open a Parquet file and check that it has the columns that `fields` name.

    Raises:
        InputError: no readable footer, no text column, or a column of a type without text.
    """
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
    except _DAMAGE as error:
        raise InputError(
            f"{path}: not a readable Parquet file ({_first_line(error)}); the footer with the"
            " schema stands at the end, so a clipped file cannot be read at all"
        ) from None
    if fields.text_field not in schema.names:
        raise InputError(
            f"{path}: no column {fields.text_field!r}; the columns are {', '.join(schema.names)};"
            " set input.text_field"
        )
    wanted = (fields.text_field, fields.id_field, fields.source_field, fields.url_field)
    for name in wanted:
        if schema.names.count(name) > 1:
            raise InputError(
                f"{path}: has {schema.names.count(name)} columns {name!r}: which one is meant?"
                " Rename one of them"
            )
    type_ = _plain(schema.field(fields.text_field).type)
    if not _is_text(type_):
        raise InputError(f"{path}: the column {fields.text_field!r} is {type_}, not string")
    for name in wanted[1:]:
        if name in schema.names and pa.types.is_nested(schema.field(name).type):
            raise InputError(
                f"{path}: the column {name!r} is {schema.field(name).type}; an id, source or url"
                " must be a string or a number"
            )
    return parquet


def read_rows(
    path: str,
    file: BinaryIO,
    fields: Fields,
    *,
    first_group: int,
    start: int,
    end: int,
    batch_bytes: int,
    max_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """Yield rows `[start, end)`, where row group `first_group` begins at row `start`.

    Rows that do not decode give one `corrupt_parquet` record for the rest of their row group.
    Batches hold about `batch_bytes` of text and never cross row groups, so that what is lost with
    a damaged page does not depend on the range.

    Raises:
        InputError: as `open_parquet`.
    """
    parquet = open_parquet(path, file, fields)
    names = (fields.text_field, fields.id_field, fields.source_field, fields.url_field)
    columns = [name for name in dict.fromkeys(names) if name in parquet.schema_arrow.names]
    row, index = start, first_group
    while row < end:
        group = parquet.metadata.row_group(index)
        group_end = row + group.num_rows
        mean_bytes = max(group.total_byte_size // max(group.num_rows, 1), 1)
        batch_rows = min(max(batch_bytes // mean_bytes, 1), MAX_ROWS)
        try:
            for batch in parquet.iter_batches(batch_rows, row_groups=[index], columns=columns):
                yield _convert(batch, row, fields, max_bytes)
                row += batch.num_rows
        except _DAMAGE as error:
            detail = f"rows {row} to {group_end - 1} (row group {index}): {_first_line(error)}"
            nothing = {name: [None] for name in ("id", "source", "url", "text")}
            yield pa.RecordBatch.from_pydict(
                {"position": [row], "error": ["corrupt_parquet"], "detail": [detail], **nothing},
                schema=SCHEMA,
            )
        row, index = group_end, index + 1


def _convert(batch: pa.RecordBatch, row: int, fields: Fields, max_bytes: int) -> pa.RecordBatch:
    """Bring one batch, whose first row is `row`, to the readers' schema."""
    n = batch.num_rows
    text = _decoded(batch.column(fields.text_field)).cast(pa.large_binary())
    missing = np.asarray(text.is_null())
    lengths = np.asarray(pc.fill_null(pc.binary_length(text), 0))
    errors: list[str | None] = [None] * n
    details: list[str | None] = [None] * n
    for at in np.flatnonzero(missing):
        errors[at], details[at] = "missing_text", f"the column {fields.text_field!r} is null"
    large = lengths > max_bytes
    for at in np.flatnonzero(large):
        errors[at] = "record_too_large"
        details[at] = f"the text has {lengths[at]} bytes, above {max_bytes}"
    clean = pc.fill_null(pc.if_else(pa.array(large), pa.scalar(b"", text.type), text), b"")
    data, offsets = _buffers(clean)

    def utf8_detail(at: int) -> str:
        try:
            data[offsets[at] : offsets[at + 1]].decode()
        except UnicodeDecodeError as error:
            return f"{error.reason} at byte {error.start} of the text of row {row + at}"
        return ""

    texts = check_texts(data, offsets, errors, details, utf8_detail)
    return pa.record_batch(
        [
            pa.array(np.arange(row, row + n)),
            *(
                _strings(batch, name)
                for name in (fields.id_field, fields.source_field, fields.url_field)
            ),
            texts,
            pa.array(errors, pa.string()),
            pa.array(details, pa.string()),
        ],
        schema=SCHEMA,
    )


def _buffers(array: pa.Array) -> tuple[bytearray, Any]:
    """Copy a large_binary array without nulls into a writable buffer and offsets (n + 1)."""
    _, offsets, data = array.buffers()
    cuts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    used = data[cuts[0] : cuts[-1]] if data is not None else b""
    return bytearray(used), cuts - cuts[0]


def _strings(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Show a column as strings.

    Bytes of fixed size and those that are not UTF-8 are shown in hex, a UUID in its usual form: two
    ids stay two.
    """
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    column = _decoded(batch.column(name))
    is_uuid = column.type == pa.uuid()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not pa.types.is_fixed_size_binary(column.type):
        with contextlib.suppress(pa.ArrowInvalid):
            strings = column.cast(pa.string())
            strings.validate(full=True)
            return strings
        show = _text_or_hex
    else:
        show = _uuid if is_uuid else _hex
    values = column.cast(pa.large_binary()).to_pylist()
    return pa.array([None if value is None else show(value) for value in values], pa.string())


def _hex(raw: bytes) -> str:
    return raw.hex()


def _uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw))


def _text_or_hex(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _hex(raw)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_text(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(type_) for check in (*kinds, *binary))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
