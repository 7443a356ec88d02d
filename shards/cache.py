"""Blocks of remote shards in sparse local files, which are mapped as if the shards were there.

A block is fetched when it is first asked for, compared with its hash, and written to its place;
only then is it marked as verified. What an earlier process left is compared again before use, so a
kill at any moment does no harm. With a bound, the block that came first goes first: its place
becomes a hole in the file. (Not the least recently used: the gather kernel does not come by here,
and in the windowed order a block is of no use after its window.)
"""

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.errors import PlatformError, RecipeError
from shards.hashing import BLOCK_BYTES, xxh128
from shards.manifest import ShardEntry

Fetch = Callable[[ShardEntry, int], bytes]
"""Returns one block of a shard's file, verified; raises an AssayError."""

_LOCK = "lock"
_MIN_BLOCKS = 16
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # flags of fallocate(2)


class CacheOptions(NamedTuple):
    """Where and how blocks of a remote dataset are kept.

    folder: local; each dataset gets a folder of its own in it, named by its id.
    max_bytes: bound of the blocks of one dataset on disk; None for all of them.
    threads: blocks fetched at a time.
    attempts, backoff_seconds: how often a block is asked for, and the first pause, which doubles.
    """

    folder: Path
    max_bytes: int | None = None
    threads: int = 8
    attempts: int = 5
    backoff_seconds: float = 0.5


class BlockCache:
    """The blocks of one dataset. All methods may be called from several threads.

    lock: held while blocks come and go; who reads mapped blocks of a bounded cache holds it.
    max_blocks: None without a bound.
    """

    def __init__(
        self,
        entries: list[ShardEntry],
        fetch: Fetch,
        folder: Path,
        options: CacheOptions,
        first_block: npt.NDArray[np.int64],
        verified: npt.NDArray[np.uint8],
    ) -> None:
        """Take over a folder; `verified[first_block[i] + b]` is set while block b of shard i is in.

        Raises:
            RecipeError: the bound is too small.
            PlatformError: the folder cannot be written to, is another process's, or cannot be
                bounded.
        """
        self.lock = threading.RLock()
        self.max_blocks = None if options.max_bytes is None else options.max_bytes // BLOCK_BYTES
        self._entries, self._fetch, self._folder = entries, fetch, folder
        self._first, self._verified = first_block, verified
        self._files: dict[int, int] = {}
        self._open: list[int] = []
        self._coming: dict[tuple[int, int], Future[None]] = {}
        self._order: dict[tuple[int, int], None] = {}  # blocks on disk that may go, oldest first
        self._kept: set[tuple[int, int]] = set()
        self._left: set[tuple[int, int]] = set()  # found on disk, not compared yet
        if self.max_blocks is not None and self.max_blocks < _MIN_BLOCKS:
            raise RecipeError(
                f"cache: max_bytes = {options.max_bytes:,} is below {_MIN_BLOCKS * BLOCK_BYTES:,}"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._own(folder / _LOCK)
            self._find_left()
        except OSError as error:
            raise self._unwritable(error) from None
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="assay-fetch")

    @property
    def is_full(self) -> bool:
        """Tell whether all blocks are there and verified, so that none will be asked for."""
        return bool(self._verified.all())

    @property
    def token_bytes(self) -> int | None:
        """Return how much room the columns leave, once all shards are open; None: no bound."""
        if self.max_blocks is None:
            return None
        with self.lock:
            return (self.max_blocks - len(self._kept)) * BLOCK_BYTES

    def path(self, shard: int) -> Path:
        """Return the local file of a shard; it has holes where blocks are not there."""
        self._file(shard)
        return self._folder / self._entries[shard].path

    def keep(self, shard: int, blocks: Iterable[int]) -> None:
        """Let some blocks stay once they are there (columns, of which views are handed out).

        Raises:
            RecipeError: they would leave no room for others.
        """
        with self.lock:
            for block in blocks:
                self._kept.add((shard, block))
                self._order.pop((shard, block), None)
            if self.max_blocks is not None and len(self._kept) > self.max_blocks - _MIN_BLOCKS // 2:
                raise RecipeError(
                    f"cache: the columns of the shards take {len(self._kept)} MiB and more, so"
                    f" max_bytes = {self.max_blocks * BLOCK_BYTES:,} leaves no room for tokens"
                )

    def request(self, shard: int, blocks: Iterable[int]) -> list[Future[None]]:
        """Let blocks come in; what is awaited fails with an AssayError where one cannot be had."""
        first, waits = int(self._first[shard]), []
        with self.lock:
            for block in blocks:
                if self._verified[first + block]:
                    continue
                place = (shard, block)
                if place not in self._coming:
                    self._coming[place] = self._pool.submit(self._bring, shard, block)
                waits.append(self._coming[place])
        return waits

    def load(self, shard: int, blocks: Iterable[int]) -> None:
        """Let blocks come in, and wait; in a bounded cache they may be gone again when it returns.

        Raises:
            CorruptError: a block does not match its hash, however often it is fetched.
            DatasetError: the shard is missing.
            PlatformError: it cannot be fetched, or not be written.
        """
        for wait in self.request(shard, blocks):
            wait.result()

    def close(self) -> None:
        """Drop what was requested and not begun, wait for the rest, close the files.

        Shards that are mapped stay readable.
        """
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self.lock:
            for file in self._open:
                os.close(file)
            self._open.clear()
            self._files.clear()

    def _bring(self, shard: int, block: int) -> None:
        """Get one block: from disk if an earlier process left it, else from afar."""
        entry, place = self._entries[shard], (shard, block)
        size = min(BLOCK_BYTES, entry.bytes - block * BLOCK_BYTES)
        try:
            file = self._file(shard)
            if place in self._left:
                data = os.pread(file, size, block * BLOCK_BYTES)
                whole = xxh128(data).hex() == entry.blocks[block]
                with self.lock:
                    if whole and place in self._left:  # it has not gone meanwhile
                        self._install(place)
                        return
            data = self._fetch(entry, block)
            with self.lock:
                _write(file, data, block * BLOCK_BYTES)
                self._install(place)
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            with self.lock:
                self._coming.pop(place, None)

    def _install(self, place: tuple[int, int]) -> None:
        """Mark a block that is on disk as verified, and make room for it."""
        shard, block = place
        with self.lock:
            self._left.discard(place)
            self._verified[self._first[shard] + block] = 1
            if place not in self._kept:
                self._order[place] = None
            self._make_room()

    def _make_room(self) -> None:
        while self.max_blocks is not None and (
            len(self._order) + len(self._kept) > self.max_blocks and self._order
        ):
            shard, block = next(iter(self._order))
            del self._order[shard, block]
            self._left.discard((shard, block))
            self._verified[self._first[shard] + block] = 0
            _punch(self._file(shard), block * BLOCK_BYTES, BLOCK_BYTES)

    def _file(self, shard: int) -> int:
        """Return the descriptor of a shard's file, made with its full size if it was not there."""
        with self.lock:
            if shard not in self._files:
                path = self._folder / self._entries[shard].path
                path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                os.truncate(file, self._entries[shard].bytes)
                self._files[shard] = file
                self._open.append(file)
            return self._files[shard]

    def _own(self, path: Path) -> None:
        """Lock the folder: alone where blocks may go, since others would map what goes."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._open.append(lock)
        kind = fcntl.LOCK_SH if self.max_blocks is None else fcntl.LOCK_EX
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise PlatformError(
                f"{self._folder}: another process uses this cache, and a cache with max_bytes is"
                " for one process: give each its own folder"
            ) from None
        if self.max_blocks is not None:
            try:
                _punch(lock, 0, BLOCK_BYTES)
            except OSError:
                os.close(lock)
                raise PlatformError(
                    f"{self._folder}: this file system cannot give back parts of files, so the"
                    " cache cannot be bounded: choose another folder, or no max_bytes"
                ) from None

    def _find_left(self) -> None:
        """Note which blocks an earlier process left on disk."""
        for shard, entry in enumerate(self._entries):
            if (self._folder / entry.path).exists():
                for block in _blocks_with_data(self._file(shard), entry.bytes):
                    self._left.add((shard, block))
                    self._order[shard, block] = None
        self._make_room()

    def _unwritable(self, error: OSError) -> PlatformError:
        return PlatformError(
            f"{self._folder}: the cache cannot be written to: {error.strerror}; make room, or"
            " choose another folder"
        )


def _blocks_with_data(file: int, size: int) -> list[int]:
    """Return the blocks of a sparse file of which a part is not a hole (lseek(2), SEEK_DATA)."""
    blocks: dict[int, None] = {}
    place = 0
    while place < size:
        try:
            start = os.lseek(file, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # holes to the end
                break
            raise
        place = os.lseek(file, start, os.SEEK_HOLE)
        blocks |= dict.fromkeys(range(start // BLOCK_BYTES, -(-place // BLOCK_BYTES)))
    return list(blocks)


def _punch(file: int, start: int, length: int) -> None:
    """Give back a part of a file: it reads as zeros afterwards, and takes no room (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate64"):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    offset, size = ctypes.c_int64(start), ctypes.c_int64(length)
    if libc.fallocate64(file, _KEEP_SIZE | _PUNCH_HOLE, offset, size):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _write(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
