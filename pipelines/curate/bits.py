"""What a corpus costs in bits before and after each stage: alone, in a long window, marginal.

A stage's documents are those that no earlier reason dropped, in the order of reasons in
`judge.py`. Three prices of the same texts, all in bits and added up over documents or shards:

* `document_bits`: each document in a frame of its own (`zstd_bpb`);
* `window_bits`: each shard's documents, in their order, in one frame with a window of 128 MiB
  (`zstd -1 --long=27`, 270 MB/s): what documents of a shard share is paid once. Shards follow from
  the recipe and the inputs, so workers change nothing; but a document's copies only lie in its
  shard where they are equal, so this is the redundancy that such a window finds, not all there is;
* `marginal_bits`: each document given a sample of the base (`marginal_bpb`), where the recipe has a
  reference.

Texts are those that are written: where repeats are cut, the ones before are cut too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from pipelines.quality.compression import LIBZSTD
from shards.text import flat

VERSION = f"zstd-1-long-27-v1 ({LIBZSTD})"

STAGES = ("read", "filters", "contamination", "exact", "near", "repeats")
"""Before all, and after each; what a recipe does not ask for changes nothing."""

_DROPPED_BY = {
    "contaminated": "contamination",
    "exact_duplicate": "exact",
    "near_duplicate": "near",
    "repeated_text": "repeats",
}
"""Reason → stage; all others of documents that were read are filters'."""

_PIECE_BYTES = 1 << 20

Bools = npt.NDArray[np.bool_]


def stage_bits(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return stage → documents, bytes and bits of a judged shard.

    Args:
        table: rows with `text`, `reason` (null where kept), `error`, `bytes`, `zstd_bpb` and, where
            the recipe has a reference, `marginal_bpb`.
    """
    gone_at = [_stage_of(reason) for reason in table["reason"].to_pylist()]
    readable = np.asarray(table["error"].is_null())
    left = np.array(gone_at, np.int64)
    left[~readable] = 0
    found: dict[str, dict[str, int]] = {}
    before: dict[str, int] = {}
    for number, stage in enumerate(STAGES):
        alive = left > number
        if not before or int(alive.sum()) != before["documents"]:
            before = _bits(table.filter(pa.array(alive)))
        found[stage] = before
    return found


def _stage_of(reason: str | None) -> int:
    """Return the number of the stage that a document does not outlive."""
    return len(STAGES) if reason is None else STAGES.index(_DROPPED_BY.get(reason, "filters"))


def _bits(table: pa.Table) -> dict[str, int]:
    sizes = table["bytes"].to_numpy()
    found = {
        "documents": len(table),
        "bytes": int(sizes.sum()),
        "document_bits": _total(table["zstd_bpb"], sizes),
        "window_bits": window_bits(*flat(table["text"])),
    }
    if "marginal_bpb" in table.column_names:
        found["marginal_bits"] = _total(table["marginal_bpb"], sizes)
    return found


def _total(bpb: pa.ChunkedArray, sizes: npt.NDArray[np.int64]) -> int:
    """Add up bits, whole ones for each document, so that their order does not matter."""
    bits: Any = np.rint(bpb.to_numpy().astype(np.float64) * sizes)
    return int(bits.sum())


def window_bits(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> int:
    """Return the bits of documents in one frame with a window of 128 MiB; 0 for no text.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
    """
    text = data[offsets[0] : offsets[-1]].data
    if not len(text):
        return 0
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        window_log=27,
        enable_ldm=True,
        write_content_size=False,
        write_checksum=False,
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(text))
    pieces = (text[at : at + _PIECE_BYTES] for at in range(0, len(text), _PIECE_BYTES))
    return 8 * (sum(len(packer.compress(piece)) for piece in pieces) + len(packer.flush()))
