"""Documents in, columns out: reading the shards of a documents dataset, encoding their tables."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import CorruptError, DatasetError
from shards.hashing import BLOCK_BYTES, block_hashes
from shards.manifest import ShardEntry, remedy
from tokenizer.model import Tokenizer

_PROVENANCE = ("input", "position", "id", "url", "source", "text", "content_hash", "cluster")
_EVIDENCE = ("reason", "value", "threshold", "matched", "jaccard", "detail")
"""Columns of a documents dataset that stay there: a token shard's `doc_id` leads back to them."""

MAX_SOURCES = 1 << 16
"""`source_id` is a uint16."""

_BATCH_BYTES = 4 << 20
"""Text encoded at a time: bounds the memory that sentencepiece needs on top of the result."""


def read_documents(
    data: bytes | memoryview, entry: ShardEntry, columns: list[str] | None = None
) -> pa.Table:
    """Decode a Parquet shard whose bytes are `data`, checked against its manifest entry.

    Raises:
        CorruptError: the bytes do not match the recorded hashes (file and block are named).
    """
    found = block_hashes(data)
    for number, (expected, actual) in enumerate(zip(entry.blocks, found, strict=False)):
        if expected != actual:
            raise CorruptError(
                f"{entry.path}: block {number} (bytes {number * BLOCK_BYTES} and on) hashes to"
                f" {actual}, the manifest states {expected}: the file was changed or damaged;"
                f" {remedy('documents')}"
            )
    if len(data) != entry.bytes:
        raise CorruptError(
            f"{entry.path}: {len(data)} bytes, the manifest states {entry.bytes}:"
            f" {remedy('documents')}"
        )
    return pq.read_table(pa.BufferReader(pa.py_buffer(data)), columns=columns)


def check_sources(sources: Collection[str]) -> None:
    """Check that `source_id` can tell all sources apart.

    Raises:
        DatasetError: there are more than `MAX_SOURCES`.
    """
    if len(sources) > MAX_SOURCES:
        some = ", ".join(repr(source) for source in sorted(sources)[:3])
        raise DatasetError(
            f"{len(sources):,} sources ({some}, …), but token shards tell at most {MAX_SOURCES:,}"
            " apart; curate with an input.source_field that holds fewer values, or with none"
        )


def encode_table(
    table: pa.Table, tokenizer: Tokenizer, sources: Sequence[str], where: str = "table"
) -> pa.Table:
    """Turn n documents into the columns of a token shard, in the same order.

    Args:
        table: rows of a kept or dropped shard, without null texts; `reason` is the mark of a
            dropped one.
        tokenizer: encodes, and every document is checked against its text.
        sources: the dataset's sorted sources; `source_id` is an index into them.
        where: the shard's name, for error messages.

    Returns:
        `doc_id`, `source_id: uint16`, `split`, `dropped` (the drop reason, "" for kept documents),
        `bytes: int64` (UTF-8), the signal columns as they are, and
        `tokens: large_list<uint16|uint32>`.

    Raises:
        DatasetError: more than `MAX_SOURCES` sources, a source that is not in `sources`, or a
            document whose tokens do not spell its text (it is named).
    """
    check_sources(sources)
    texts = table["text"].combine_chunks()
    texts = texts.cast(pa.large_string())
    lengths = pc.binary_length(texts).cast(pa.int64())
    source_ids = pc.index_in(table["source"].combine_chunks(), pa.array(sources, pa.string()))
    if source_ids.null_count:
        unknown = table["source"].filter(pc.is_null(source_ids))[0].as_py()
        raise DatasetError(
            f"{where}: source {unknown!r} is not among the manifest's sources {sources}"
        )
    if "reason" in table.column_names:
        dropped = table["reason"].cast(pa.string())
    else:
        dropped = pa.array([""] * len(table), pa.string())
    columns = {
        "doc_id": table["doc_id"],
        "source_id": source_ids.cast(pa.uint16()),
        "split": table["split"],
        "dropped": dropped,
        "bytes": lengths,
    }
    known = {*_PROVENANCE, *_EVIDENCE, *columns}
    columns |= {name: table[name] for name in table.column_names if name not in known}
    return pa.table(
        {**columns, "tokens": _encode(texts, lengths, table["doc_id"], tokenizer, where)}
    )


def _encode(
    texts: pa.LargeStringArray,
    lengths: pa.Int64Array,
    doc_ids: pa.ChunkedArray,
    tokenizer: Tokenizer,
    where: str,
) -> pa.LargeListArray:
    """Encode batch by batch into one flat array, and check each batch."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.to_numpy())])
    parts = [np.empty(0, tokenizer.dtype)]
    offsets = [np.zeros(1, np.int64)]
    start = tokens = 0
    while start < len(texts):
        stop = int(np.searchsorted(ends, ends[start] + _BATCH_BYTES, side="right")) - 1
        stop = max(stop, start + 1)
        batch = texts.slice(start, stop - start)
        ids, cuts = tokenizer.encode_batch(batch)
        failed = tokenizer.check_lossless(batch, ids, cuts)
        if len(failed):
            doc_id = doc_ids[start + int(failed[0])].as_py().hex()
            raise DatasetError(
                f"{where}: document {doc_id}: its tokens do not give back its text ({len(failed)}"
                f" such documents in a batch of {len(batch)}), so the tokenizer {tokenizer.name}"
                " would lose data; this is a bug in Assay or in sentencepiece: report it with what"
                f" `assay explain DATASET {doc_id}` shows"
            )
        parts.append(ids)
        offsets.append(cuts[1:] + tokens)
        tokens += len(ids)
        start = stop
    return pa.LargeListArray.from_arrays(
        pa.array(np.concatenate(offsets)), pa.array(np.concatenate(parts))
    )
