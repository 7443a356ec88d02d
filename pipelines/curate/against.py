"""Earlier datasets: a signature index is written with a dataset, later ones are held against it.

The index has a row for each document that could be read, kept or dropped: what `resolve` would read
of it again, its shingle set in place of its text. An index shard so stands in the graph as a
fragment whose documents rank before all new ones, and the decisions about new documents are those
of one run over everything with `keep = "earliest"`. Sets are whole, since any sketch of them would
make a pair near the threshold fall differently (see `dedup.incremental`): 8 bytes for each
different shingle, about as much as the text.
"""

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.config import DedupConfig
from dedup.shingles import shingle_sets
from dedup.words import Int64, UInt64
from pipelines import files
from pipelines.commit import read_dataset, shard_path
from pipelines.curate.keep import keep_order
from pipelines.curate.schema import ID
from shards.errors import CorruptError, DatasetError, RecipeError
from shards.manifest import InputEntry, Manifest
from shards.text import flat

INDEX_ROW_GROUP = 256
"""Documents of a row group: about a megabyte, what is read to get at one of them."""


class EarlierShard(msgspec.Struct, frozen=True):
    """An index shard: its place, its sha256, and how many input files precede its dataset's."""

    path: str
    sha256: str
    first_order: int


class Earlier(msgspec.Struct, frozen=True):
    """The datasets that a job is held against: ids, index shards, input files, and rows."""

    datasets: list[str] = []
    shards: list[EarlierShard] = []
    inputs: list[InputEntry] = []
    readable: int = 0
    banded: int = 0

    def copies(self) -> dict[str, int]:
        """Return how many files of each hash there are: a file's copy number goes on from there."""
        counts: dict[str, int] = {}
        for entry in self.inputs:
            counts[entry.hash] = counts.get(entry.hash, 0) + 1
        return counts


def find_earlier(config: DedupConfig, definitions: dict[str, str]) -> Earlier:
    """Read the manifests of the datasets in `dedup.against`.

    Raises:
        RecipeError: there is nothing by which datasets could be held against each other, or one of
            them is no documents dataset, has no signature index, was made with other
            definitions or another `[dedup.near]`, or is held against datasets that are not in the
            list before it.
    """
    if (config.against or config.index) and not (config.exact.enabled or config.near.enabled):
        key = "against" if config.against else "index"
        raise RecipeError(
            f"dedup.{key}: exact.enabled and near.enabled are both false, so no document is a"
            f" duplicate of an earlier one; enable one of them, or leave out dedup.{key}"
        )
    found = Earlier()
    for folder in config.against:
        try:
            manifest = read_dataset(folder)
        except CorruptError:
            raise
        except DatasetError as error:
            raise RecipeError(f"dedup.against: {error}") from None
        _check(folder, manifest, found.datasets, config, definitions)
        rows = manifest.content.stats["index"]
        found = Earlier(
            [*found.datasets, manifest.dataset_id],
            [
                *found.shards,
                *(
                    EarlierShard(shard_path(folder, entry), entry.sha256, len(found.inputs))
                    for entry in manifest.content.shards["index"]
                ),
            ],
            [*found.inputs, *manifest.content.inputs],
            found.readable + rows["readable"],
            found.banded + rows["banded"],
        )
    return found


def _check(
    folder: str,
    manifest: Manifest,
    before: list[str],
    config: DedupConfig,
    definitions: dict[str, str],
) -> None:
    content = manifest.content
    if content.kind != "documents":
        raise RecipeError(
            f"{folder}: is a {content.kind} dataset; dedup.against takes documents datasets, as"
            " `assay curate` makes them"
        )
    if "index" not in content.shards:
        raise RecipeError(
            f"{folder}: has no signature index to be held against; curate it again with"
            " dedup.index = true"
        )
    if manifest.dataset_id in before:
        raise RecipeError(f"{folder}: dataset {manifest.dataset_id} is in dedup.against twice")
    if content.parents != before:
        raise RecipeError(
            f"{folder}: was held against datasets {content.parents}, but {before} come before it in"
            " dedup.against; list all of them, the earliest first"
        )
    own = _decisive(msgspec.to_builtins(config))
    its = _decisive(content.recipe["dedup"])
    own["definitions"] = {k: v for k, v in definitions.items() if k.startswith("dedup.")}
    its["definitions"] = {k: v for k, v in content.definitions.items() if k.startswith("dedup.")}
    for key, value in own.items():
        if value != its[key]:
            raise RecipeError(
                f"{folder}: was made with another dedup.{key} ({its[key]!r}) than this recipe"
                f" ({value!r}): its signatures say nothing about yours; curate it again, or use"
                " its values"
            )


def check_index(earlier: Earlier) -> None:
    """Check that all index shards are there, without reading them.

    Raises:
        CorruptError: one is not.
    """
    for shard in earlier.shards:
        if not files.exists(shard.path):
            raise CorruptError(f"{shard.path}: is missing; curate its dataset again")


def _decisive(dedup: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of `[dedup]` in which two datasets must agree."""
    return {
        "exact": dedup["exact"],
        **{f"near.{key}": value for key, value in dedup["near"].items()},
    }


def index_schema(bands: int) -> pa.Schema:
    """Return the schema of index shards; `order` is the place of the input in `input.paths`."""
    return pa.schema(
        [
            pa.field("doc_id", ID, nullable=False),
            pa.field("content_hash", ID, nullable=False),
            pa.field("order", pa.int64(), nullable=False),
            pa.field("position", pa.int64(), nullable=False),
            pa.field("eligible", pa.bool_(), nullable=False),
            pa.field("bands", pa.binary(8 * max(bands, 1))),
            pa.field("set", pa.large_list(pa.uint64()), nullable=False),
        ]
    )


def index_table(table: pa.Table, orders: list[int], recipe: Any, bands: int) -> pa.Table:
    """Return the index rows of a shard's fragment rows.

    Args:
        table: rows as gathered from fragments.
        orders: of each input of the plan, its place in `input.paths`.
        recipe: the curate recipe.
        bands: band hashes of a document.
    """
    table = table.filter(table["error"].is_null())
    near = recipe.dedup.near
    data, offsets = flat(table["text"])
    if not near.enabled:  # nothing is ever compared but contents, by their hash
        data, offsets = data[:0], np.zeros_like(offsets)
    sets, bounds = shingle_sets(data, offsets, near.ngram, near.unit)
    eligible, _, _ = keep_order(table, recipe, 0)
    return pa.table(
        {
            "doc_id": table["doc_id"],
            "content_hash": table["content_hash"],
            "order": np.array(orders, dtype=np.int64)[table["input"].to_numpy()],
            "position": table["position"],
            "eligible": pa.array(eligible),
            "bands": table["bands"],
            "set": pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(sets)),
        },
        schema=index_schema(bands),
    )


def read_index(shard: EarlierShard) -> pa.Table:
    """Read an index shard whole but for its sets, checked against its hash.

    Raises:
        CorruptError: it is gone, or its bytes are not those that its dataset's manifest states.
    """
    path = shard.path
    check_index(Earlier(shards=[shard]))
    data = files.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise CorruptError(
            f"{path}: does not match its manifest; see `assay verify` of its dataset"
        )
    columns = [name for name in index_schema(1).names if name != "set"]
    return pq.read_table(pa.BufferReader(data), columns=columns)


def index_order(
    table: pa.Table, shard: EarlierShard
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], Int64]:
    """Return (eligible, key, tie) of index rows, as `keep_order` does for `earliest`."""
    order = table["order"].to_numpy() + shard.first_order
    return (
        np.asarray(table["eligible"]),
        order.astype(np.float64),
        table["position"].to_numpy().copy(),
    )


def take_index(shard: EarlierShard, rows: Int64, columns: list[str]) -> pa.Table:
    """Read some rows of an index shard: only the row groups that they are in."""
    file = _open(shard.path, shard.sha256)
    groups = np.unique(rows // INDEX_ROW_GROUP)
    table = file.read_row_groups(groups.tolist(), columns=columns)
    place = np.searchsorted(groups, rows // INDEX_ROW_GROUP)
    return table.take(pa.array(place * INDEX_ROW_GROUP + rows % INDEX_ROW_GROUP))


@lru_cache(maxsize=8)
def _open(path: str, _sha256: str) -> pq.ParquetFile:
    if files.is_local(path):
        return pq.ParquetFile(path, memory_map=True)
    return pq.ParquetFile(pa.BufferReader(files.read_bytes(path)))


def taken_sets(table: pa.Table) -> tuple[UInt64, Int64]:
    """Return the shingle sets of index rows: (uint64[m], int64[n + 1])."""
    column = table["set"].combine_chunks()
    bounds = column.offsets.to_numpy()
    values = column.values.to_numpy()[bounds[0] : bounds[-1]]
    return np.ascontiguousarray(values), bounds - bounds[0]
