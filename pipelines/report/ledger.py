"""What was dropped, from the ledger: bytes by reason, examples per rule, pairs of duplicates.

The evidence columns of all dropped shards are read at once (about 150 bytes a row); text is read
only for the documents that are shown, a row group at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lookup import places
from shards.errors import CorruptError
from shards.manifest import ShardEntry
from shards.verify import check_shard

DUPLICATES = ("exact_duplicate", "near_duplicate")
EXAMPLES = 3
PAIRS = 6

_EVIDENCE = (
    "doc_id", "source", "url", "id", "bytes", "cluster",
    "reason", "value", "threshold", "matched", "jaccard", "detail",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A dropped document: why, and what it is. `text` is None where it was not kept or read."""

    doc_id: str
    source: str
    place: str
    bytes: int | None
    value: float | None
    threshold: float | None
    detail: str | None
    text: str | None


@dataclass(frozen=True)
class Cluster:
    """A cluster of duplicates by what became of its members: kept + exact + near + other = size."""

    cluster: str
    size: int
    exact: int
    near: int
    other: int
    sources: list[str]

    @property
    def kept(self) -> int:
        """Members that stayed in the dataset."""
        return self.size - self.exact - self.near - self.other


@dataclass(frozen=True)
class Pair:
    """A near duplicate that was dropped, and the kept document that it matched."""

    cluster: Cluster
    jaccard: float
    dropped: dict[str, Any]
    kept: dict[str, Any]


def read_ledger(folder: Path, entries: list[ShardEntry]) -> pa.Table:
    """Return the evidence of all dropped documents, in dataset order, without text.

    Raises:
        CorruptError: a shard cannot be read.
    """
    for entry in entries:
        check_shard(folder, entry)
    return pa.concat_tables(_read(folder / entry.path, list(_EVIDENCE)) for entry in entries)


def bytes_by_reason(ledger: pa.Table) -> dict[str, int]:
    """Return reason → UTF-8 bytes of dropped text; records that could not be read count 0."""
    sums = ledger.group_by("reason").aggregate([("bytes", "sum")])
    return {row["reason"]: row["bytes_sum"] or 0 for row in sums.to_pylist()}


def pick_examples(ledger: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Choose up to `EXAMPLES` dropped documents for each reason that is not a duplicate.

    Where there is a threshold: the nearest to it, the median and the farthest, since these show
    whether it is in the right place. Otherwise the first ones. Reasons come most frequent first;
    ties go to the first in dataset order, so that the choice depends on the dataset alone.
    """
    picked: dict[str, list[dict[str, Any]]] = {}
    counts = pc.value_counts(ledger["reason"]).to_pylist()
    for count in sorted(counts, key=lambda item: (-item["counts"], item["values"])):
        if count["values"] in DUPLICATES:
            continue
        rows = ledger.filter(pc.equal(ledger["reason"], count["values"]))
        distance = pc.abs(pc.subtract(rows["value"], rows["threshold"])).to_numpy()
        order = np.argsort(distance, kind="stable")  # nulls are NaN, all equal: the order stays
        places = sorted({0, len(order) // 2, len(order) - 1}) if len(order) > EXAMPLES else order
        picked[count["values"]] = rows.take(pa.array(order[places])).to_pylist()
    return picked


def summarize_clusters(ledger: pa.Table, top: list[dict[str, Any]]) -> list[Cluster]:
    """Count what became of the members of clusters.

    Args:
        ledger: from `read_ledger`.
        top: the manifest's `stats.clusters` (id, size, first members), largest first.
    """
    result = []
    for item in top:
        rows = _of_cluster(ledger, item["cluster"])
        reasons = rows["reason"].to_pylist()
        exact, near = (reasons.count(reason) for reason in DUPLICATES)
        sources = sorted(set(rows["source"].to_pylist()))
        other = len(reasons) - exact - near
        result.append(Cluster(item["cluster"], item["size"], exact, near, other, sources))
    return result


def pick_pairs(ledger: pa.Table, clusters: list[Cluster]) -> list[tuple[Cluster, dict[str, Any]]]:
    """Choose the near duplicate with the lowest Jaccard of each of the first clusters that has one.

    It is the one nearest to the threshold, and shows the most differences.
    """
    pairs = []
    for cluster in clusters:
        rows = _of_cluster(ledger, cluster.cluster)
        near = rows.filter(pc.equal(rows["reason"], "near_duplicate")).to_pylist()
        if near:
            pairs.append((cluster, min(near, key=lambda row: (row["jaccard"], row["doc_id"]))))
        if len(pairs) == PAIRS:
            break
    return pairs


def _of_cluster(ledger: pa.Table, cluster: str) -> pa.Table:
    wanted = pa.scalar(bytes.fromhex(cluster), type=pa.binary(16))
    return ledger.filter(pc.equal(ledger["cluster"], wanted))


def fetch(folder: Path, entries: Iterable[ShardEntry], ids: set[bytes]) -> dict[bytes, Any]:
    """Return doc_id → `source`, `url`, `id`, `bytes` and `text` of the documents asked for.

    Raises:
        CorruptError: a shard cannot be read.
    """
    found: dict[bytes, Any] = {}
    wanted = pa.array(sorted(ids), type=pa.binary(16))
    for entry in entries:
        if len(found) == len(ids):
            break
        path = folder / entry.path
        column = _read(path, ["doc_id"])["doc_id"]
        rows = places(pc.is_in(column, value_set=wanted))
        if rows:
            check_shard(folder, entry)
            found |= {row["doc_id"]: row for row in _rows(path, rows)}
    return found


def _rows(path: Path, rows: list[int]) -> list[dict[str, Any]]:
    """Read some rows of a shard, only the row groups that they are in."""
    result: list[dict[str, Any]] = []
    first = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            inside = [row - first for row in rows if first <= row < first + size]
            if inside:
                columns = ["doc_id", "source", "url", "id", "bytes", "text"]
                table = file.read_row_group(group, columns=columns)
                result += table.take(pa.array(inside)).to_pylist()
            first += size
    return result


def make_pairs(
    picked: list[tuple[Cluster, dict[str, Any]]], dropped: dict[bytes, Any], kept: dict[bytes, Any]
) -> list[Pair]:
    """Join the chosen near duplicates with their texts; pairs without both texts are left out."""
    pairs = []
    for cluster, row in picked:
        left, right = kept.get(row["matched"]), dropped.get(row["doc_id"])
        if left and right and left["text"] is not None and right["text"] is not None:
            pairs.append(Pair(cluster, row["jaccard"], right, left))
    return pairs


def make_examples(
    picked: dict[str, list[dict[str, Any]]], dropped: dict[bytes, Any]
) -> dict[str, list[Example]]:
    """Join the chosen documents of each reason with their texts."""
    return {
        reason: [
            Example(
                doc_id=row["doc_id"].hex(),
                source=row["source"],
                place=row["url"] or row["id"] or "",
                bytes=row["bytes"],
                value=row["value"],
                threshold=row["threshold"],
                detail=row["detail"],
                text=dropped.get(row["doc_id"], {}).get("text"),
            )
            for row in rows
        ]
        for reason, rows in picked.items()
    }


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptError(
            f"{path}: cannot be read ({error}); see `assay verify {path.parent.parent}`"
        ) from None
