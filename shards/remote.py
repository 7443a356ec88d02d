"""A dataset on another machine, read block by block through fsspec, each block verified.

fsspec knows s3://, gs://, https:// and more, where the package for it is installed. What fails is
tried again after a pause that doubles; so is a block that does not match its hash, since what was
wrong may have been the way here.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shards.errors import AssayError, CorruptError, DatasetError, PlatformError
from shards.hashing import BLOCK_BYTES, xxh128
from shards.manifest import (
    MANIFEST,
    Manifest,
    ShardEntry,
    check_paths,
    decode_manifest,
    read_manifest,
)

T = TypeVar("T")
_MAX_PAUSE_SECONDS = 30.0


def open_manifest(place: str) -> Manifest:
    """Read the manifest of a dataset in a folder or at a URL.

    Raises:
        DatasetError, CorruptError: there is none, or it cannot be used.
        PlatformError: a URL that cannot be read.
    """
    return Remote(place).manifest() if is_remote(place) else read_manifest(place)


def is_remote(folder: str | Path) -> bool:
    """Tell whether a dataset's name is a URL."""
    return isinstance(folder, str) and "://" in folder


class _BadBlockError(Exception):
    """A block came, but with other bytes."""


class Remote:
    """The files of one dataset. All methods may be called from several threads."""

    def __init__(self, url: str, *, attempts: int = 5, backoff_seconds: float = 0.5) -> None:
        """Find the file system; reads nothing.

        Raises:
            PlatformError: the package for this kind of URL is not installed.
        """
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.url = url.rstrip("/")
        try:
            self._files, self._root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise PlatformError(f"{url}: {error}") from None
        self._attempts, self._backoff = max(1, attempts), backoff_seconds

    def manifest(self) -> Manifest:
        """Read and check the manifest.

        Raises:
            DatasetError: there is none, or it cannot be used.
            CorruptError: it is damaged.
            PlatformError: it cannot be fetched.
        """

        def read() -> bytes:
            return bytes(self._files.cat_file(f"{self._root}/{MANIFEST}"))

        name = f"{self.url}/{MANIFEST}"
        instead = "copy the dataset there again"
        manifest = decode_manifest(self._try(read, name), name, instead)
        check_paths(manifest, name)
        return manifest

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of each file in a folder of the dataset, by path in the dataset.

        Raises:
            DatasetError: there is no such folder.
            PlatformError: it cannot be read.
        """

        def read() -> dict[str, int]:
            self._files.invalidate_cache()
            found = self._files.ls(f"{self._root}/{folder}", detail=True)
            return {
                f"{folder}/{str(item['name']).rpartition('/')[2]}": int(item["size"] or 0)
                for item in found
                if item["type"] == "file"
            }

        return self._try(read, f"{self.url}/{folder}")

    def fetch(self, entry: ShardEntry, block: int) -> bytes:
        """Fetch one block of a shard.

        Raises:
            CorruptError: it does not match its hash, however often it is fetched.
            DatasetError: the shard is missing.
            PlatformError: it cannot be fetched.
        """
        start, expected = block * BLOCK_BYTES, entry.blocks[block]
        end = min(start + BLOCK_BYTES, entry.bytes)

        def read() -> bytes:
            data = bytes(self._files.cat_file(f"{self._root}/{entry.path}", start=start, end=end))
            found = xxh128(data).hex()
            if found != expected:
                raise _BadBlockError(
                    f"expected xxh3-128 {expected}, found {found} ({len(data)} bytes)"
                )
            return data

        return self._try(read, f"{self.url}/{entry.path}: block {block} (bytes from {start})")

    def _try(self, work: Callable[[], T], what: str) -> T:
        pause = self._backoff
        for attempt in range(1, self._attempts + 1):
            try:
                return work()
            except FileNotFoundError:
                raise DatasetError(
                    f"{what}: no such file; a finished dataset has it: copy it there again"
                ) from None
            except Exception as error:  # each file system raises its own kind
                if attempt == self._attempts:
                    raise self._failed(what, error) from None
            # Not all at the same time again: between a half and one and a half times the pause.
            time.sleep(min(pause, _MAX_PAUSE_SECONDS) * random.uniform(0.5, 1.5))
            pause *= 2
        raise AssertionError("unreachable")

    def _failed(self, what: str, error: Exception) -> AssayError:
        times = f"fetched {self._attempts} times"
        if isinstance(error, _BadBlockError):
            return CorruptError(f"{what}: {error}, {times}; copy this file there again")
        return PlatformError(
            f"{what}: cannot be read, {times}: {type(error).__name__}: {error}; check the network"
            " and the rights, then run again: what is in the cache stays"
        )
