"""How much of the data a loader mixes at a time, where the cache is smaller than the data."""

from typing import NamedTuple

from shards.errors import RecipeError
from shards.hashing import BLOCK_BYTES

_CHUNK_BLOCKS = 8
"""Blocks of a chunk: its ends lie inside blocks, so a chunk of n blocks reads n + 1."""

_MIN_CHUNKS = 8
"""Below this, chunks become smaller, so that a window still mixes places far apart."""


class Window(NamedTuple):
    """A window is `chunks` chunks of `chunk` neighbouring samples (see `shards.order`).

    Part of the state of a loader: another window is another order.
    """

    chunk: int
    chunks: int


NO_WINDOW = Window(0, 1)
"""The order over all samples of an epoch."""


def plan_window(max_bytes: int, sample_bytes: int) -> Window:
    """Return the largest window that fits twice into a cache: the one read, and the next.

    Args:
        max_bytes: what a cache has for tokens (`BlockCache.token_bytes`).
        sample_bytes: bytes of a sample's tokens in a shard, T times 2 or 4.

    Raises:
        RecipeError: the cache is too small for windows of `_MIN_CHUNKS` chunks.
    """
    half = max_bytes // 2
    for blocks in (_CHUNK_BLOCKS, _CHUNK_BLOCKS // 4, 1):
        chunk = max(1, blocks * BLOCK_BYTES // sample_bytes)
        reads = -(-chunk * sample_bytes // BLOCK_BYTES) + 1
        chunks = half // (reads * BLOCK_BYTES)
        if chunks >= _MIN_CHUNKS:
            return Window(chunk, chunks)
    raise RecipeError(
        f"a window of {half:,} bytes is too small for samples of {sample_bytes:,} bytes: it needs"
        f" at least {_MIN_CHUNKS * reads * BLOCK_BYTES:,}, and the cache twice that"
    )
