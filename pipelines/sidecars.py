"""What a job says of its finished work, so that a run that goes on does not make it again.

A sidecar is a JSON object that states the xxh3-128 of its name and itself in its first key,
`check`: one that was damaged, or stands in the place of another, means that the work is done again.
"""

from typing import Protocol, TypeVar

import msgspec

from pipelines import files
from pipelines.commit import is_whole
from shards.hashing import xxh128
from shards.manifest import ShardEntry

S = TypeVar("S")


class Finished(Protocol):
    """The result of one shard, as plain data."""

    @property
    def entry(self) -> ShardEntry:
        """The shard that was written."""


class ShardContext(Protocol):
    """What of a worker's context says where shards and their sidecars are."""

    @property
    def out(self) -> str:
        """The folder of the dataset."""

    @property
    def results(self) -> str:
        """The folder of the sidecars."""


R = TypeVar("R", bound=Finished)


def write_sidecar(path: str, value: object) -> None:
    """Write `value` (a Struct that becomes a JSON object) and the hash of its name and JSON."""
    data = msgspec.json.encode(value)
    files.write_atomic(path, _head(path, data) + data[1:])


def read_sidecar(path: str, kind: type[S]) -> S | None:
    """Read a sidecar; None where there is none, it is damaged, or of another version."""
    if not files.exists(path):
        return None
    found = files.read_bytes(path)
    data = b"{" + found[len(_head(path, b"")) :]
    if not found.startswith(_head(path, data)):
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        return None


def _head(path: str, data: bytes) -> bytes:
    name = path.rpartition("/")[2]  # not its folder, which may be moved
    return b'{"check":"%s",' % xxh128(name.encode(errors="surrogateescape") + data).hex().encode()


def write_result(context: ShardContext, shard: int, result: Finished) -> None:
    """Write the sidecar of shard number `shard`, after the shard itself."""
    write_sidecar(_path(context, shard), result)


def read_result(
    context: ShardContext, shard: int, kind: type[R], *, verify: bool = True
) -> R | None:
    """Return a finished shard's sidecar, or None where it or the shard is not right.

    With `verify` the shard is read and hashed; without it, its size is looked at.
    """
    result = read_sidecar(_path(context, shard), kind)
    whole = result is not None and is_whole(context.out, result.entry, verify=verify)
    return result if whole else None


def _path(context: ShardContext, shard: int) -> str:
    return files.join(context.results, f"shard-{shard:05d}.json")
