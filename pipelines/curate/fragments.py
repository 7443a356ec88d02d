"""Fragments: what the scan leaves for a range, as Arrow files with a record batch per shard.

Text is stored uncompressed, so that the resolve stage can map a local fragment and read single
documents, and the write stage single batches, without decoding the rest. A range of which a worker
can not hold everything (a file that cannot be split) becomes several parts, one fragment each. A
sidecar, written last, holds a fragment's hash: a rerun trusts it only if the bytes still match.
"""

import io
import itertools
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines import files
from pipelines.curate.plan import Plan
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.errors import CorruptError
from shards.manifest import Counts

_BOUNDS = b"bounds"
"""Metadata key: int64[shards + 1], little-endian; shard s has rows `[bounds[s], bounds[s + 1])`."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One fragment of a job: a part of a range, by their numbers."""

    range: int
    part: int


class FragmentInfo(msgspec.Struct, frozen=True):
    """Sidecar of a fragment: hash and size of its file, and what the scan read, per source.

    `batches` counts the reader's batches that are in it; `last` says that its range ends here.
    """

    hash: str
    bytes: int
    rows: int
    readable: int
    banded: int
    sources: dict[str, Counts]
    batches: int = 0
    last: bool = True


class Fragment(NamedTuple):
    """A fragment opened for reading: its batches, and the rows of each."""

    reader: pa.ipc.RecordBatchFileReader
    bounds: npt.NDArray[np.int64]

    def shard(self, number: int) -> pa.RecordBatch:
        """Return the rows of a shard."""
        return self.reader.get_batch(number)

    def take(self, rows: npt.NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Return rows (sorted numbers) with some columns; only the batches they are in are read."""
        batch = np.searchsorted(self.bounds, rows, side="right") - 1
        found = [self.reader.schema.empty_table().select(columns)]
        for number in np.unique(batch).tolist():
            chosen = pa.array(rows[batch == number] - self.bounds[number])
            part = self.reader.get_batch(number).select(columns).take(chosen)
            found.append(pa.Table.from_batches([part]))
        return pa.concat_tables(found)


def fragment_path(work: str, plan: Plan, at: Part) -> str:
    """Return the path of a fragment: named by input content, span and part."""
    owner = plan.owner(at.range)
    span = plan.ranges[at.range]
    name = f"{owner.hash}-{owner.copy}-{span.start}-{span.end}-{at.part:05d}.arrow"
    return files.join(work, "fragments", name)


def fragment_bytes(table: pa.Table, shard: npt.NDArray[np.int64], shards: int) -> memoryview:
    """Encode a table sorted by shard as an Arrow file of `shards` record batches, some empty."""
    bounds = np.searchsorted(shard, np.arange(shards + 1)).astype("<i8")
    schema = table.schema.with_metadata({_BOUNDS: bounds.tobytes()})
    (whole,) = table.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=table.schema)
    ]
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        for start, end in itertools.pairwise(bounds.tolist()):
            writer.write_batch(whole.slice(start, end - start))
    return sink.getbuffer()


def write_fragment(path: str, data: memoryview, info: FragmentInfo) -> None:
    """Write a fragment and then its sidecar."""
    files.write_atomic(path, data)
    write_sidecar(f"{path}.json", info)


def read_info(path: str, *, verify: bool = True) -> FragmentInfo | None:
    """Return a finished fragment's sidecar, or None where it is not there or does not match.

    Args:
        path: the fragment's.
        verify: read and hash the fragment; without it, look at its size only.
    """
    info = read_sidecar(f"{path}.json", FragmentInfo)
    if info is None or not files.exists(path):
        return None
    if not verify:
        return info if files.size(path) == info.bytes else None
    found = xxhash.xxh3_128_hexdigest(files.read_bytes(path))
    return info if found == info.hash else None


def read_parts(
    work: str, plan: Plan, index: int, *, verify: bool = True
) -> tuple[list[FragmentInfo], bool]:
    """Return the sidecars of the first parts of a range that stand, and whether they are all."""
    found: list[FragmentInfo] = []
    while not found or not found[-1].last:
        info = read_info(fragment_path(work, plan, Part(index, len(found))), verify=verify)
        if info is None:
            return found, False
        found.append(info)
    return found, True


def open_fragment(path: str, columns: list[str] | None = None) -> Fragment:
    """Open a fragment: memory-mapped on a local disk, read by batches elsewhere.

    Args:
        path: the fragment's.
        columns: those that will be asked for: elsewhere no others are read, the text least of all.

    Raises:
        CorruptError: not an Arrow file any more.
    """
    try:
        if files.is_local(path):
            reader = pa.ipc.open_file(pa.memory_map(path))
        else:
            file = pa.PythonFile(files.open_file(path), mode="r")
            reader = pa.ipc.open_file(file)
            if columns is not None:
                wanted = [reader.schema.get_field_index(name) for name in columns]
                options = pa.ipc.IpcReadOptions(included_fields=sorted(wanted))
                reader = pa.ipc.open_file(file, options=options)
        return Fragment(reader, np.frombuffer(reader.schema.metadata[_BOUNDS], dtype="<i8"))
    except (pa.ArrowInvalid, FileNotFoundError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path}: fragment cannot be read ({error}); delete the _work folder and run again"
        ) from None
