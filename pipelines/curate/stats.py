"""Statistics for reports: histograms and compressed sizes that add up over shards."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.curate.bits import stage_bits
from pipelines.quality import pii

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
        `{"histograms": {column: {role: counts}}, "zstd_bits": {role: bits}, "bytes": {role: n}}`;
        where there is a column `lang`, `"languages": {role: {language: {"documents": n,
        "bytes": n}}}`; where personal data was masked, `"masked": {role: {"documents": n,
        "bytes": n, "email": n, …}}`; and `"stages"`, what `bits.stage_bits` returns. Values below
        the first edge of a histogram count in its first bin, those above the last in the last.
    """
    readable = np.asarray(table["error"].is_null())
    roles = {"kept": kept & readable, "dropped": ~kept & readable}
    stats: Stats = {"histograms": {}, "zstd_bits": {}, "bytes": {}, "stages": stage_bits(table)}
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
    if "lang" in table.column_names:
        stats["languages"] = {
            role: languages(table.filter(pa.array(mask))) for role, mask in roles.items()
        }
    if "masked_bytes" in table.column_names:
        stats["masked"] = {
            role: masked(table.filter(pa.array(mask))) for role, mask in roles.items()
        }
    return stats


def masked(table: pa.Table) -> Stats:
    """Count what was masked in a table with the columns `pii.MASKED`, and in how many documents."""
    sums = {name.removeprefix("masked_"): pc.sum(table[name]).as_py() or 0 for name in pii.MASKED}
    documents = pc.sum(pc.greater(table["masked_bytes"], 0)).as_py() or 0
    return {"documents": documents, **sums}


def languages(table: pa.Table) -> Stats:
    """Count documents and bytes of each language of a table with `lang` and `bytes`."""
    found = table.group_by("lang").aggregate([("bytes", "count"), ("bytes", "sum")])
    return {
        row["lang"]: {"documents": row["bytes_count"], "bytes": row["bytes_sum"]}
        for row in found.sort_by("lang").to_pylist()
    }


def histogram(values: npt.NDArray[np.float64], edges: list[float]) -> list[int]:
    """Count values between `edges` (n + 1 of them); outliers go to the end bins."""
    clipped = np.clip(values, edges[0], np.nextafter(edges[-1], 0))
    counts, _ = np.histogram(clipped, bins=np.array(edges))
    return [int(count) for count in counts]


def merge_stats(parts: Iterable[Stats]) -> Stats:
    """Add up statistics of any number of shards: numbers add, lists by element, tables by key."""
    total: Stats = {}
    for part in parts:
        total = _add(total, part) if total else part
    return total


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        return {
            key: _add(left[key], right[key])
            if key in left and key in right
            else left.get(key, right.get(key))
            for key in [*left, *(key for key in right if key not in left)]
        }
    if isinstance(left, list):
        return [_add(a, b) for a, b in zip(left, right, strict=True)]
    return left + right
