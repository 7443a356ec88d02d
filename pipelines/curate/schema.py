"""Columns of documents datasets and of fragments; see docs/design/spine.md for their meaning."""

import pyarrow as pa

from pipelines.quality import DEFAULT, SignalsConfig, signal_fields

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


OVERLAP, DETAIL, FOUND = "evaluation_overlap", "evaluation_detail", "evaluation_spans"

EVALUATION = [
    pa.field(OVERLAP, pa.float32()),
    pa.field(DETAIL, pa.string()),
    pa.field(FOUND, pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))),
]
"""Columns of a fragment about evaluation items: null where none is found."""

SPANS = [
    pa.field("doc_id", ID, nullable=False),
    pa.field("start", pa.int64(), nullable=False),
    pa.field("end", pa.int64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("action", pa.string(), nullable=False),
    pa.field("detail", pa.string()),
    pa.field("text", pa.large_string()),
]
"""A row of the spans ledger: bytes `start` to `end` of a document's text as it was read. `action`
is `dropped` (the whole document), `marked` (nothing done) or `removed`."""


def spans_schema() -> pa.Schema:
    """Return the schema of span shards: what was found inside documents, and what was done."""
    return pa.schema(SPANS)


def kept_schema(signals: SignalsConfig = DEFAULT) -> pa.Schema:
    """Return the schema of kept shards."""
    return pa.schema([*PROVENANCE, *DECISION, *signal_fields(signals)])


def dropped_schema(signals: SignalsConfig = DEFAULT) -> pa.Schema:
    """Return the schema of dropped shards: the ledger."""
    return pa.schema([*PROVENANCE, *DECISION, *EVIDENCE, *signal_fields(signals)])


def fragment_schema(bands: int, signals: SignalsConfig = DEFAULT) -> pa.Schema:
    """Return the schema of fragments: provenance, signals, band hashes, items found, errors.

    `bands` holds the document's band hashes as `bands` little-endian uint64; null where a document
    takes no part in near-duplicate search (unreadable, no words, or near dedup is off).
    """
    return pa.schema(
        [
            *PROVENANCE,
            *signal_fields(signals),
            pa.field("bands", pa.binary(8 * bands)),
            *EVALUATION,
            pa.field("error", pa.string()),
            pa.field("detail", pa.string()),
        ]
    )
