"""`exact-v1`: content hashes of text that is equal but for white space.

Runs of white space (Unicode's White_Space property) count as one space and none at either end.
Nothing else is folded: what differs in case or punctuation is left to near deduplication, which
can show how similar it is.
"""

from itertools import pairwise

import numpy as np
import xxhash

from dedup.vector import BLOCK, copy_spaced, range_mask, trailing_zeros
from dedup.words import BYTES, OFFSETS, Int64, UInt8, space_width
from shards.jit import inline, kernel

_SPACE = np.uint8(0x20)
_CHUNK_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def content_hashes(data: UInt8, offsets: Int64) -> UInt8:
    """Return the xxh3-128 digests of the documents' normalised texts: uint8[n, 16].

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
    """
    digests: list[bytes] = []
    start = 0
    while start < offsets.size - 1:
        # A megabyte at a time: fresh memory for a whole corpus costs more than the copying.
        stop = int(np.searchsorted(offsets, offsets[start] + _CHUNK_BYTES, side="right")) - 1
        stop = max(stop, start + 1)
        text, bounds = normalise_space(data, offsets[start : stop + 1])
        view = text.data
        digests += [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(bounds.tolist())]
        start = stop
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)


def normalise_space(data: UInt8, offsets: Int64) -> tuple[UInt8, Int64]:
    """Return the documents with white space collapsed and stripped, in the same flat form."""
    out = np.empty(int(offsets[-1] - offsets[0]) + BLOCK, dtype=np.uint8)
    bounds = np.zeros(offsets.size, dtype=np.int64)
    _collapse(data, offsets, out, bounds)
    return out[: bounds[-1]], bounds


@inline
def _white_mask(data: UInt8, at: int) -> np.uint64:
    """Return the bits of the ASCII white space in the block at `at`."""
    return np.uint64(range_mask(data, at, 0x09, 0x0D) | range_mask(data, at, 0x20, 0x20))


@inline
def _maybe_space_mask(data: UInt8, at: int) -> np.uint64:
    """Return the bits of the block's bytes that may start a longer white-space character.

    C2 before 85 or A0, E1 to E3 before 80, 81 or 9A; whatever follows the block may match.
    """
    short = range_mask(data, at, 0x85, 0x85) | range_mask(data, at, 0xA0, 0xA0)
    long = range_mask(data, at, 0x80, 0x81) | range_mask(data, at, 0x9A, 0x9A)
    beyond = np.uint64(1) << np.uint64(BLOCK - 1)
    pairs = range_mask(data, at, 0xC2, 0xC2) & (short >> np.uint64(1) | beyond)
    triples = range_mask(data, at, 0xE1, 0xE3) & (long >> np.uint64(1) | beyond)
    return np.uint64(pairs | triples)


@kernel(f"void({BYTES}, {OFFSETS}, uint8[::1], int64[::1])")
def _collapse(data: UInt8, offsets: Int64, out: UInt8, bounds: Int64) -> None:
    """Write each document's normalised text to `out`, its end to `bounds`.

    `out` has as much room as the documents and `BLOCK` bytes more.
    """
    filled = 0
    for doc in range(offsets.size - 1):
        at, end = offsets[doc], offsets[doc + 1]
        start = filled
        spaced = 1  # as if after white space, so that none leads
        while at < end:
            if at + BLOCK <= end:
                # Copy up to the first byte that is not copied as it is, at best a whole block.
                white = _white_mask(data, at)
                repeated = white & ((white << np.uint64(1)) | np.uint64(spaced))
                stops = repeated | _maybe_space_mask(data, at)
                plain = BLOCK if stops == 0 else trailing_zeros(stops)
                if plain > 0:
                    copy_spaced(data, at, out, filled)
                    filled += plain
                    at += plain
                    spaced = int(np.int64((white >> np.uint64(plain - 1)) & np.uint64(1)))
                    if stops == 0:
                        continue
            width = space_width(data, at, end)
            if width == 0:
                out[filled] = data[at]
                filled += 1
                spaced = 0
                at += 1
                continue
            if spaced == 0:
                out[filled] = _SPACE
                filled += 1
                spaced = 1
            while at < end and width > 0:
                at += width
                width = space_width(data, at, end) if at < end else 0
        if filled > start and spaced:
            filled -= 1
        bounds[doc + 1] = filled
