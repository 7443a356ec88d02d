"""Statistics for reports: histograms and compressed sizes that add up over shards."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BYTES_EDGES = [float(2**power) for power in range(4, 25)]
"""Histogram edges for document length: powers of two from 16 B to 16 MiB."""

BPB_EDGES = [round(0.25 * step, 2) for step in range(41)]
"""Histogram edges for bits per byte: quarter bits from 0 to 10."""

WORDS_EDGES = [float(2**power) for power in range(22)]
"""Histogram edges for words per document: powers of two from 1 to 2 million."""

HISTOGRAMS = {"bytes": BYTES_EDGES, "zstd_bpb": BPB_EDGES, "gopher_words": WORDS_EDGES}

Stats = dict[str, Any]


def shard_stats(table: pa.Table, kept: npt.NDArray[np.bool_]) -> Stats:
    """Return one shard's statistics: per role (kept, dropped), only of documents that were read.

    Returns:
        `{"histograms": {column: {role: counts}}, "zstd_bits": {role: bits}, "bytes": {role: n}}`.
        Values below the first edge count in the first bin, those above the last in the last.
    """
    readable = np.asarray(table["error"].is_null())
    roles = {"kept": kept & readable, "dropped": ~kept & readable}
    stats: Stats = {"histograms": {}, "zstd_bits": {}, "bytes": {}}
    for column, edges in HISTOGRAMS.items():
        values = table[column].fill_null(0).to_numpy().astype(np.float64)
        stats["histograms"][column] = {
            role: histogram(values[mask], edges) for role, mask in roles.items()
        }
    size = table["bytes"].fill_null(0).to_numpy()
    # bits = bits per byte × bytes, rounded, so that sums over shards do not depend on their order
    bits = np.rint(table["zstd_bpb"].fill_null(0).to_numpy().astype(np.float64) * size)
    for role, mask in roles.items():
        stats["zstd_bits"][role] = int(bits[mask].sum())
        stats["bytes"][role] = int(size[mask].sum())
    return stats


def histogram(values: npt.NDArray[np.float64], edges: list[float]) -> list[int]:
    """Count values between `edges` (n + 1 of them); outliers go to the end bins."""
    clipped = np.clip(values, edges[0], np.nextafter(edges[-1], 0))
    counts, _ = np.histogram(clipped, bins=np.array(edges))
    return [int(count) for count in counts]


def merge_stats(parts: Iterable[Stats]) -> Stats:
    """Add up statistics of any number of shards; numbers add, lists add by element."""
    total: Stats = {}
    for part in parts:
        total = _add(total, part) if total else part
    return total


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        return {key: _add(left[key], right[key]) for key in left}
    if isinstance(left, list):
        return [_add(a, b) for a, b in zip(left, right, strict=True)]
    return left + right
