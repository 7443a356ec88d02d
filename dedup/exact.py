"""`exact-v1`: content hashes of text that is equal but for white space.

Runs of white space (Unicode's White_Space property) count as one space and none at either end.
Nothing else is folded: what differs in case or punctuation is left to near deduplication, which
can show how similar it is.
"""

from itertools import pairwise

import numpy as np
import xxhash

from dedup.words import BYTES, OFFSETS, Int64, UInt8
from shards.jit import inline, kernel

_SPACE = np.uint8(0x20)


def content_hashes(data: UInt8, offsets: Int64) -> UInt8:
    """Return the xxh3-128 digests of the documents' normalised texts: uint8[n, 16].

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
    """
    text, bounds = normalise_space(data, offsets)
    view = text.data
    ends = bounds.tolist()
    digests = b"".join([xxhash.xxh3_128_digest(view[start:end]) for start, end in pairwise(ends)])
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def normalise_space(data: UInt8, offsets: Int64) -> tuple[UInt8, Int64]:
    """Return the documents with white space collapsed and stripped, in the same flat form."""
    out = np.empty(int(offsets[-1] - offsets[0]) + 1, dtype=np.uint8)
    bounds = np.zeros(offsets.size, dtype=np.int64)
    _collapse(data, offsets, out, bounds)
    return out[: bounds[-1]], bounds


@inline
def _space_width(data: UInt8, at: int, end: int) -> int:  # noqa: PLR0911 (one per lead byte)
    """Return the bytes of the white-space character at `at`, 0 if there is none.

    U+0009–000D, 0020, 0085, 00A0, 1680, 2000–200A, 2028, 2029, 202F, 205F, 3000 in UTF-8.
    """
    lead = data[at]
    if lead == 0x20 or 0x09 <= lead <= 0x0D:
        return 1
    if lead == 0xC2:
        return 2 if at + 1 < end and data[at + 1] in (0x85, 0xA0) else 0
    if lead < 0xE1 or lead > 0xE3 or at + 2 >= end:
        return 0
    second, third = data[at + 1], data[at + 2]
    if lead == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    if lead == 0xE3:
        return 3 if second == 0x80 and third == 0x80 else 0
    if second == 0x80:
        return 3 if 0x80 <= third <= 0x8A or third in (0xA8, 0xA9, 0xAF) else 0
    return 3 if second == 0x81 and third == 0x9F else 0


@kernel(f"void({BYTES}, {OFFSETS}, uint8[::1], int64[::1])")
def _collapse(data: UInt8, offsets: Int64, out: UInt8, bounds: Int64) -> None:
    """Write each document's normalised text to `out` (one byte of slack), its end to `bounds`."""
    filled = 0
    for doc in range(offsets.size - 1):
        at, end = offsets[doc], offsets[doc + 1]
        start = filled
        spaced = 1  # as if after white space, so that none leads
        while at < end:
            byte = data[at]
            if byte < 0x80:
                # No branch on the text: always write, move on unless it is a second space.
                space = int(byte == 0x20) | int((byte >= 0x09) & (byte <= 0x0D))
                out[filled] = _SPACE if space else byte
                filled += 1 - (space & spaced)
                spaced = space
                at += 1
                continue
            width = _space_width(data, at, end) if byte <= 0xE3 else 0
            if width > 0:
                if spaced == 0:
                    out[filled] = _SPACE
                    filled += 1
                spaced = 1
                at += width
            else:
                out[filled] = byte
                filled += 1
                spaced = 0
                at += 1
        if filled > start and spaced:
            filled -= 1
        bounds[doc + 1] = filled
