"""A file of numbered parts: who takes one knows that it is as it was written, and reads no other.

So work that one kind of element leaves and another takes up (rows by shard, then by bucket) goes
through the file system, and not through a runner's memory. In front stands a head for each part:
where it starts and ends, its xxh3-128, and that of the head so far.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO

from pipelines import files
from shards.errors import CorruptError
from shards.hashing import xxh128

_HEAD = struct.Struct("<2q16s16s")


def write_parts(path: str, parts: Sequence[bytes | memoryview]) -> None:
    """Write a file of `parts`, whole or not at all."""
    heads, at = [], len(parts) * _HEAD.size
    for part in parts:
        head = _HEAD.pack(at, at + len(part), xxh128(part), b"")[:-16]
        heads.append(head + xxh128(head))
        at += len(part)
    files.write_atomic(path, b"".join((*heads, *parts)))


def read_part(path: str, number: int, made_in: str) -> bytes:
    """Read part `number` of a file.

    Args:
        path: the file's.
        number: from 0.
        made_in: the folder or file to delete so that it is made again, for the error message.

    Raises:
        InputError: the file cannot be opened.
        CorruptError: the part is not as it was written.
    """
    with files.open_file(path) as file:
        found = _read(file, number)
    if found is None:
        raise CorruptError(
            f"{path}: its bytes do not match their hash; delete {made_in} and run again"
        )
    return found


def parts_stand(path: str, count: int) -> bool:
    """Tell whether a file of `count` parts can be taken up, by the rule of `files.stands`."""
    if not files.exists(path) or not files.is_local(path):
        return files.exists(path)
    with files.open_file(path) as file:
        return all(_read(file, number) is not None for number in range(count))


def _read(file: BinaryIO, number: int) -> bytes | None:
    file.seek(number * _HEAD.size)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or xxh128(head[:-16]) != head[-16:]:
        return None
    start, end, digest, _ = _HEAD.unpack(head)
    file.seek(start)
    part = file.read(end - start)
    return part if xxh128(part) == digest else None
