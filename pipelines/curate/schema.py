"""Columns of documents datasets and of fragments; see docs/design/spine.md for their meaning."""

import pyarrow as pa

from pipelines.quality import signal_fields

ID = pa.binary(16)

PROVENANCE = [
    pa.field("doc_id", ID, nullable=False),
    pa.field("input", pa.uint32(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("id", pa.string()),
    pa.field("url", pa.string()),
    pa.field("source", pa.string(), nullable=False),
    pa.field("text", pa.large_string()),
    pa.field("content_hash", ID, nullable=False),
]

DECISION = [
    pa.field("split", pa.string(), nullable=False),
    pa.field("cluster", ID),
]

EVIDENCE = [
    pa.field("reason", pa.string(), nullable=False),
    pa.field("value", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("matched", ID),
    pa.field("jaccard", pa.float32()),
    pa.field("detail", pa.string()),
]


def kept_schema() -> pa.Schema:
    """Return the schema of kept shards."""
    return pa.schema([*PROVENANCE, *DECISION, *signal_fields()])


def dropped_schema() -> pa.Schema:
    """Return the schema of dropped shards: the ledger."""
    return pa.schema([*PROVENANCE, *DECISION, *EVIDENCE, *signal_fields()])


def fragment_schema(bands: int) -> pa.Schema:
    """Return the schema of fragments: provenance, signals, band hashes, and reading errors.

    `bands` holds the document's band hashes as `bands` little-endian uint64; null where a document
    takes no part in near-duplicate search (unreadable, no words, or near dedup is off).
    """
    return pa.schema(
        [
            *PROVENANCE,
            *signal_fields(),
            pa.field("bands", pa.binary(8 * bands)),
            pa.field("error", pa.string()),
            pa.field("detail", pa.string()),
        ]
    )
