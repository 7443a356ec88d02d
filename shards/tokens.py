"""Token shards: Arrow IPC files with one uncompressed record batch, read as zero-copy arrays.

The file is written so that equal columns give equal bytes: no compression, no pandas metadata,
schema metadata in sorted order, slices and chunks joined, values under nulls set to zero. `tokens`
is the last column, so that everything else lies before the token stream and can be verified
apart from it.
"""

import hashlib
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import CorruptError, DatasetError
from shards.hashing import block_hashes
from shards.manifest import ShardEntry

FORMAT = 1
"""Version of the token shard layout, in the schema metadata as `assay.format`."""

UINT16_VOCAB = 1 << 16
"""Largest vocabulary whose ids fit into uint16; above it tokens are uint32."""

_PREFIX = "assay."
_HEAD = b"ARROW1\0\0"
_TAIL = b"ARROW1"


class TokenMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What made the tokens; `tokenizer_sha256` is the hex sha256 of the tokenizer's model file."""

    tokenizer_sha256: str
    vocab_size: int
    eos_id: int


@dataclass(frozen=True)
class TokenShard:
    """A token shard in memory: views of the mapped file, nothing copied.

    tokens: uint16[t] or uint32[t], the token stream of all documents, each ending with EOS.
    offsets: int64[n + 1]; document i is `tokens[offsets[i]:offsets[i + 1]]`.
    batch: the record batch (n rows) with all columns.
    tokens_at: position in the file of the stream's first byte.
    address: the stream's address in memory, valid while this object lives.
    """

    path: Path
    metadata: TokenMetadata
    batch: pa.RecordBatch
    tokens: npt.NDArray[np.unsignedinteger[Any]]
    offsets: npt.NDArray[np.int64]
    tokens_at: int
    address: int


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the dtype of token ids: uint16 for up to 65536 ids, uint32 above."""
    return np.dtype(np.uint16 if vocab_size <= UINT16_VOCAB else np.uint32)


def encode_token_shard(
    columns: pa.Table | pa.RecordBatch | Mapping[str, Any], metadata: TokenMetadata
) -> memoryview:
    """Return the bytes of a token shard.

    Args:
        columns: n rows with a `tokens` column (list or large_list of integers) and any others;
            dictionary-encoded columns become plain ones. A mapping of names to arrays will do.
        metadata: stored in the schema, beside the layout version and the counts.

    Raises:
        DatasetError: no `tokens` column, a null list, a document that does not end with EOS, or an
            id outside the vocabulary.
    """
    table = pa.table(dict(columns)) if isinstance(columns, Mapping) else columns
    if "tokens" not in table.schema.names:
        raise DatasetError(f"a token shard needs a 'tokens' column; got {table.schema.names}")
    names = [name for name in table.schema.names if name != "tokens"]
    arrays = [_canonical(table.column(name)) for name in names]
    tokens = _canonical_tokens(table.column("tokens"), metadata)
    facts = {
        "format": str(FORMAT),
        "documents": str(table.num_rows),
        "tokens": str(len(tokens.values)),
        **{key: str(value) for key, value in msgspec.structs.asdict(metadata).items()},
    }
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
        + [pa.field("tokens", tokens.type)],
        metadata={_PREFIX + key: facts[key] for key in sorted(facts)},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([*arrays, tokens], schema=schema))
    return memoryview(sink.getvalue())


def shard_entry(
    path: str, data: bytes | memoryview, *, documents: int, tokens: int = 0, first_token: int = 0
) -> ShardEntry:
    """Return the manifest entry of a shard file whose bytes are `data`; `path` is relative."""
    return ShardEntry(
        path=path,
        bytes=memoryview(data).nbytes,
        sha256=hashlib.sha256(data).hexdigest(),
        blocks=block_hashes(data),
        documents=documents,
        tokens=tokens,
        first_token=first_token,
    )


def open_token_shard(
    path: str | Path, touch: Callable[[int, int], None] | None = None
) -> TokenShard:
    """Map a token shard into memory.

    Args:
        path: a local file.
        touch: called with a byte range [start, end) of the file before those bytes are relied
            on: a caller that has block hashes checks them here. All bytes but the token stream's
            are touched by this function, the stream's are the caller's to check.

    Raises:
        CorruptError: not an Arrow file of this layout, or its parts disagree.
        DatasetError: no such file, or another layout version.
    """
    file = Path(path)
    try:
        with file.open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DatasetError(f"{file}: no such token shard") from None
    except ValueError:  # an empty file cannot be mapped
        raise CorruptError(f"{file}: is empty") from None
    buffer = pa.py_buffer(mapped)
    touch = touch or (lambda start, end: None)
    _touch_arrow_metadata(file, mapped, touch)
    try:
        reader = pa.ipc.open_file(pa.BufferReader(buffer))
        metadata = _read_metadata(file, reader.schema)
        if reader.num_record_batches != 1:
            raise CorruptError(f"{file}: {reader.num_record_batches} record batches, expected 1")
        batch = reader.get_batch(0)
        batch.validate()
        column = batch.column(batch.schema.names.index("tokens"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptError(f"{file}: not a token shard: {error}") from None
    dtype = token_dtype(metadata.vocab_size)
    if column.type != _tokens_type(metadata.vocab_size):
        raise CorruptError(f"{file}: tokens are {column.type}, expected large_list<{dtype}>")
    _, cuts, _, values = column.buffers()
    size = values.size // dtype.itemsize if values is not None else 0
    address = values.address if size else buffer.address
    tokens_at = address - buffer.address
    touch(0, tokens_at)
    touch(tokens_at + size * dtype.itemsize, len(mapped))
    offsets = np.frombuffer(cuts, np.int64)[: batch.num_rows + 1] if cuts else np.zeros(1, np.int64)
    count = len(column.values)
    if offsets[0] != 0 or offsets[-1] != count or count > size or np.any(np.diff(offsets) < 0):
        raise CorruptError(f"{file}: document offsets do not fit the {count} tokens of the shard")
    tokens = np.frombuffer(values, dtype)[:count] if size else np.zeros(0, dtype)
    return TokenShard(file, metadata, batch, tokens, offsets, tokens_at, address)


def _tokens_type(vocab_size: int) -> pa.DataType:
    return pa.large_list(pa.field("item", pa.from_numpy_dtype(token_dtype(vocab_size))))


def _canonical_tokens(column: Any, metadata: TokenMetadata) -> pa.LargeListArray:
    """Return the column as one large_list that starts at 0, checked against the vocabulary."""
    if column.null_count:
        raise DatasetError(f"token shard: {column.null_count} documents have null tokens")
    column = _joined(column)
    values = np.asarray(column.flatten())
    lengths = np.diff(np.asarray(column.offsets, np.int64))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < metadata.vocab_size:
        raise DatasetError(
            f"token shard: ids from {values.min()} to {values.max()} do not fit a vocabulary of"
            f" {metadata.vocab_size}"
        )
    closed = (lengths > 0) & (values[np.maximum(offsets[1:] - 1, 0)] == metadata.eos_id)
    if not closed.all():
        raise DatasetError(
            f"token shard: document in row {int(np.argmin(closed))} does not end with EOS"
            f" ({metadata.eos_id})"
        )
    kind = _tokens_type(metadata.vocab_size)
    ids = pa.array(values.astype(token_dtype(metadata.vocab_size), copy=False))
    return pa.LargeListArray.from_arrays(pa.array(offsets), ids, type=kind)


def _canonical(column: Any) -> pa.Array:
    """Return one array whose buffers depend on its values only, not on how it was made."""
    column = _joined(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):  # bits beyond the end of a slice would be written too
        return pa.array(column.to_pylist(), column.type)
    if column.null_count == 0:
        return column
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        nulls = np.asarray(column.is_null())
        values = np.asarray(column.fill_null(0))
        return pa.array(values, column.type, mask=nulls)
    return pa.array(column.to_pylist(), column.type)


def _joined(column: Any) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _touch_arrow_metadata(file: Path, mapped: mmap.mmap, touch: Callable[[int, int], None]) -> None:
    """Touch an Arrow file's own metadata step by step, each part before it leads to the next.

    Layout (Arrow columnar format, "IPC File Format"): magic, messages of 0xFFFFFFFF, int32 length
    and that many bytes of flatbuffer (schema, then record batch), body, footer, int32 length of
    the footer, magic.
    """
    size = len(mapped)

    def read(start: int, end: int) -> bytes:
        if not 0 <= start < end <= size:
            raise CorruptError(f"{file}: Arrow metadata points outside the file: [{start}, {end})")
        touch(start, end)
        return mapped[start:end]

    tail = read(size - len(_TAIL) - 4, size)
    if read(0, len(_HEAD)) != _HEAD or tail[4:] != _TAIL:
        raise CorruptError(f"{file}: not an Arrow IPC file (wrong first or last bytes)")
    read(size - len(tail) - int.from_bytes(tail[:4], "little", signed=True), size - len(tail))
    position = len(_HEAD)
    for _ in ("schema", "record batch"):
        prefix = read(position, position + 8)
        end = position + 8 + int.from_bytes(prefix[4:], "little", signed=True)
        read(position, end)
        position = end


def _read_metadata(file: Path, schema: pa.Schema) -> TokenMetadata:
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if found.get(_PREFIX + "format") != str(FORMAT):
        raise DatasetError(
            f"{file}: token shard format {found.get(_PREFIX + 'format')!r}, but this version of"
            f" Assay reads format {FORMAT}"
        )
    wanted = {key: found.get(_PREFIX + key) for key in TokenMetadata.__struct_fields__}
    try:
        return msgspec.convert(wanted, TokenMetadata, strict=False)
    except msgspec.ValidationError as error:
        raise CorruptError(f"{file}: schema metadata: {error}") from None
