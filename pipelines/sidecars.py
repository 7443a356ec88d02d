"""What a worker leaves beside a finished token shard, so that it is not made again."""

from typing import Protocol, TypeVar

import msgspec

from pipelines import files
from pipelines.commit import is_whole
from shards.manifest import ShardEntry


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


def write_result(context: ShardContext, shard: int, result: Finished) -> None:
    """Write the sidecar of shard number `shard`, after the shard itself."""
    files.write_atomic(_path(context, shard), msgspec.json.encode(result))


def read_result(
    context: ShardContext, shard: int, kind: type[R], *, verify: bool = True
) -> R | None:
    """Return a finished shard's sidecar, or None where it or the shard is not right.

    With `verify` the shard is read and hashed; without it, its size is looked at.
    """
    path = _path(context, shard)
    if not files.exists(path):
        return None
    result = msgspec.json.decode(files.read_bytes(path), type=kind)
    return result if is_whole(context.out, result.entry, verify=verify) else None


def _path(context: ShardContext, shard: int) -> str:
    return files.join(context.results, f"shard-{shard:05d}.json")
