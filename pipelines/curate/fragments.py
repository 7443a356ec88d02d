"""Fragments: what the scan leaves for one range, as one Arrow file with a record batch per shard.

Text is stored uncompressed, so that the resolve stage can map a local fragment and read single
documents, and the write stage single batches, without decoding the rest. A sidecar, written last,
holds the fragment's hash: a rerun trusts a fragment only if the bytes still match.
"""

import io
import itertools

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines import files
from pipelines.curate.plan import Plan
from shards.errors import CorruptError
from shards.manifest import Counts


class FragmentInfo(msgspec.Struct, frozen=True):
    """Sidecar of a fragment: hash and size of its file, and what the scan read, per source."""

    hash: str
    bytes: int
    rows: int
    readable: int
    banded: int
    sources: dict[str, Counts]


def fragment_path(work: str, plan: Plan, index: int) -> str:
    """Return the path of the fragment of range `index`: named by input content and span."""
    owner = plan.owner(index)
    span = plan.ranges[index]
    return files.join(work, "fragments", f"{owner.hash}-{owner.copy}-{span.start}-{span.end}.arrow")


def fragment_bytes(table: pa.Table, shard: npt.NDArray[np.int64], shards: int) -> memoryview:
    """Encode a table sorted by shard as an Arrow file of `shards` record batches, some empty."""
    bounds = np.searchsorted(shard, np.arange(shards + 1))
    (whole,) = table.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=table.schema)
    ]
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for start, end in itertools.pairwise(bounds):
            writer.write_batch(whole.slice(start, end - start))
    return sink.getbuffer()


def write_fragment(path: str, data: memoryview, info: FragmentInfo) -> None:
    """Write a fragment and then its sidecar."""
    files.write_atomic(path, data)
    files.write_atomic(f"{path}.json", msgspec.json.encode(info))


def read_info(path: str) -> FragmentInfo | None:
    """Return a finished fragment's sidecar, or None where it is not there or does not match."""
    if not files.exists(f"{path}.json") or not files.exists(path):
        return None
    info = msgspec.json.decode(files.read_bytes(f"{path}.json"), type=FragmentInfo)
    found = xxhash.xxh3_128_hexdigest(files.read_bytes(path))
    return info if found == info.hash else None


def open_fragment(path: str) -> pa.ipc.RecordBatchFileReader:
    """Open a fragment for reading batches: memory-mapped on a local disk, in memory elsewhere.

    Raises:
        CorruptError: not an Arrow file any more.
    """
    try:
        if files.is_local(path):
            return pa.ipc.open_file(pa.memory_map(path))
        return pa.ipc.open_file(pa.py_buffer(files.read_bytes(path)))
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise CorruptError(
            f"{path}: fragment cannot be read ({error}); delete the _work folder and run again"
        ) from None
