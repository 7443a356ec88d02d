"""The kernel that encodes documents with byte-pair merges, exactly as sentencepiece does.

sentencepiece starts from characters and merges, again and again, the adjacent pair whose joined
text is the piece with the highest score, the leftmost of equals (`bpe_model.cc`). A merge never
crosses a place where no piece holds the two characters around it side by side. Cut there, a
document falls into short segments that can be encoded apart: words with the space before them,
runs of punctuation, single digits, whatever the vocabulary says. The same segments come again and
again, so their ids are kept in a hash table whose keys are the bytes themselves, not a hash of
them: a hit is always right.

Segments are short, so the next pair to merge is found by looking at all of them: no heap. For one
with more than `MAX_SYMBOLS` characters the kernel stops and asks for help (`encode`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from shards.jit import inline, kernel

MAX_SYMBOLS = 256
"""Characters of the longest segment that is encoded here; the time grows with the square."""

MAX_KEY = 23
"""Bytes of the longest segment that is kept."""

_SPACE = 0x2581
"""What sentencepiece writes for a space, so that the real one must become bytes."""

_CODE_POINTS = 0x110000
_NONE = np.int32(2**31 - 1)
_MIX_1 = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_3 = np.uint64(0x94D049BB133111EB)
_S29, _S32, _S56 = np.uint64(29), np.uint64(32), np.uint64(56)
_ALL = np.uint64(2**64 - 1)
_ZERO = np.uint64(0)


@intrinsic  # type: ignore[untyped-decorator]
def _load(typingctx: Any, address: Any) -> Any:
    """Read 8 bytes at an integer address that need not be aligned."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(types.uint64)
        return builder.load(builder.inttoptr(args[0], kind.as_pointer()), align=1)

    return types.uint64(types.uintp), codegen


@inline
def wide_slot(left: Any, right: Any, size: Any) -> Any:
    """Return where in a table of `size` (a power of two) two adjacent code points are noted."""
    mixed = (np.uint64(left) * _MIX_1 + np.uint64(right)) * _MIX_2
    return np.int64((mixed ^ (mixed >> _S32)) & np.uint64(size - 1))


@inline
def _pair_slot(key: Any, size: Any) -> Any:
    mixed = np.uint64(key) * _MIX_1
    return np.int64((mixed ^ (mixed >> _S29)) & np.uint64(size - 1))


@kernel("void(int64[::1], int32[::1], int64[::1], int32[::1])")
def fill_pairs(
    keys: npt.NDArray[np.int64],
    pieces: npt.NDArray[np.int32],
    table_keys: npt.NDArray[np.int64],
    table_pieces: npt.NDArray[np.int32],
) -> None:
    """Put (key, piece) pairs into a hash table, power of two in size, whose empty keys are -1."""
    size = len(table_keys)
    for i in range(len(keys)):
        slot = _pair_slot(keys[i], size)
        while table_keys[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        table_keys[slot] = keys[i]
        table_pieces[slot] = pieces[i]


@kernel("void(int64[::1], int64[::1], uint8[::1])")
def fill_wide(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], wide: npt.NDArray[np.uint8]
) -> None:
    """Note pairs of code points that stand side by side in some piece."""
    for i in range(len(left)):
        wide[wide_slot(left[i], right[i], len(wide))] = 1


@inline
def _decode(text: Any, at: Any, end: Any) -> Any:
    """Return the code point at `at` and its bytes: never beyond `end`, never above the last one."""
    if at >= end:
        return np.int64(0), 0
    first = np.int64(text[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0 and at + 1 < end:
        return (first & 31) << 6 | (np.int64(text[at + 1]) & 63), 2
    if first < 0xF0 and at + 2 < end:
        middle = (np.int64(text[at + 1]) & 63) << 6
        return (first & 15) << 12 | middle | (np.int64(text[at + 2]) & 63), 3
    if at + 3 < end:
        high, middle = (np.int64(text[at + 1]) & 63) << 12, (np.int64(text[at + 2]) & 63) << 6
        point = (first & 7) << 18 | high | middle | (np.int64(text[at + 3]) & 63)
        return min(point, _CODE_POINTS - 1), 4
    return _CODE_POINTS - 1, 1  # not UTF-8


@inline
def _lookup(table_keys: Any, table_pieces: Any, left: Any, right: Any, symbols: Any) -> Any:
    """Return the piece that two adjacent symbols make, or -1."""
    if left < 0 or right < 0:
        return np.int32(-1)
    key = np.int64(left) * symbols + np.int64(right)
    slot = _pair_slot(key, len(table_keys))
    while table_keys[slot] >= 0:
        if table_keys[slot] == key:
            return table_pieces[slot]
        slot = (slot + 1) & (len(table_keys) - 1)
    return np.int32(-1)


@inline
def _spell(
    text: Any,
    start: Any,
    symbol: Any,
    place: Any,
    n: Any,
    vocabulary: Any,
    byte_ids: Any,
    out: Any,
    at: Any,
) -> Any:
    """Write the ids of n symbols to `out` from `at`, bytes for what is no piece; count them."""
    count = 0
    for i in range(n):
        if 0 <= symbol[i] < vocabulary:
            out[at + count] = symbol[i]
            count += 1
        else:
            for k in range(start + place[i], start + place[i + 1]):
                out[at + count] = byte_ids[text[k]]
                count += 1
    return count


@inline
def _merge(
    text: Any,
    start: Any,
    end: Any,
    symbol_of: Any,
    symbols: Any,
    table_keys: Any,
    table_pieces: Any,
    rank: Any,
    byte_ids: Any,
    scratch: Any,
    out: Any,
    at: Any,
) -> Any:
    """Encode one segment into `out` from `at`; return the number of ids, or -1 if it is too long.

    `scratch: int32[4, MAX_SYMBOLS + 1]` holds, for each symbol left, itself, where its text starts,
    and the piece that it and the next make, with that piece's rank.
    """
    symbol, place, piece, order = scratch[0], scratch[1], scratch[2], scratch[3]
    n, position = 0, start
    while position < end:
        if n == MAX_SYMBOLS:
            return -1
        point, size = _decode(text, position, end)
        symbol[n] = symbol_of[point]
        place[n] = position - start
        position += size
        n += 1
    place[n] = end - start
    for i in range(n - 1):
        piece[i] = _lookup(table_keys, table_pieces, symbol[i], symbol[i + 1], symbols)
        order[i] = rank[piece[i]] if piece[i] >= 0 else _NONE
    while True:
        best, lowest = -1, _NONE
        for i in range(n - 1):
            if order[i] < lowest:  # strictly: the leftmost of equals
                best, lowest = i, order[i]
        if best < 0:
            break
        symbol[best] = piece[best]
        for i in range(best + 1, n - 1):
            symbol[i] = symbol[i + 1]
            piece[i] = piece[i + 1]
            order[i] = order[i + 1]
        for i in range(best + 1, n):
            place[i] = place[i + 1]
        n -= 1
        for i in range(max(best - 1, 0), min(best + 1, n - 1)):
            piece[i] = _lookup(table_keys, table_pieces, symbol[i], symbol[i + 1], symbols)
            order[i] = rank[piece[i]] if piece[i] >= 0 else _NONE
    return _spell(text, start, symbol, place, n, len(rank), byte_ids, out, at)


@inline
def _segment_end(text: Any, stop: Any, end: Any, point: Any, joins: Any, wide: Any) -> Any:
    """Find the end of the segment whose first character, `point`, ends at `stop`.

    Returns the end, and the character that follows with its size (size 0 at the end of the text).
    """
    while stop < end:
        before = point
        point, size = _decode(text, stop, end)
        if before < 128 and point < 128:
            if joins[before << 7 | point] == 0:
                return stop, point, size
        elif point == _SPACE or wide[wide_slot(before, point, len(wide))] == 0:
            return stop, point, size
        stop += size
    return stop, np.int64(0), 0


@inline
def _words(text: Any, address: Any, start: Any, length: Any) -> Any:
    """Return up to `MAX_KEY` bytes as three words, the length in the last byte."""
    word_0, word_1, word_2 = _ZERO, _ZERO, np.uint64(length) << _S56
    if start + 24 <= len(text):
        mask = (np.uint64(1) << np.uint64(8 * (length & 7))) - np.uint64(1)
        word_0 = _load(address + np.uint64(start))
        if length < 8:
            return word_0 & mask, word_1, word_2
        word_1 = _load(address + np.uint64(start + 8))
        if length < 16:
            return word_0, word_1 & mask, word_2
        return word_0, word_1, word_2 | (_load(address + np.uint64(start + 16)) & mask)
    for k in range(length):
        byte = np.uint64(text[start + k]) << np.uint64(8 * (k & 7))
        if k < 8:
            word_0 |= byte
        elif k < 16:
            word_1 |= byte
        else:
            word_2 |= byte
    return word_0, word_1, word_2


@inline
def _find(cache: Any, word_0: Any, word_1: Any, word_2: Any) -> Any:
    """Return the slot of a segment, or the empty one where it belongs."""
    mixed = (word_0 * _MIX_1) ^ (word_1 * _MIX_2) ^ (word_2 * _MIX_3)
    mixed = (mixed ^ (mixed >> _S32)) * _MIX_2
    slot = np.int64((mixed >> _S32) & np.uint64(len(cache) - 1))
    while cache[slot, 3] != 0 and (
        cache[slot, 0] != word_0 or cache[slot, 1] != word_1 or cache[slot, 2] != word_2
    ):
        slot = (slot + 1) & (len(cache) - 1)
    return slot


@inline
def _keep(
    cache: Any,
    arena: Any,
    used: Any,
    slot: Any,
    word_0: Any,
    word_1: Any,
    word_2: Any,
    out: Any,
    at: Any,
    count: Any,
) -> None:
    """Remember the ids of a segment, `out[at:at + count]`; forget all others when that is full."""
    if used[0] * 2 > len(cache) or used[1] + count > len(arena):
        cache[:, 3] = 0
        used[:] = 0
        slot = _find(cache, word_0, word_1, word_2)
    value = np.int64(out[at])
    if count > 1:
        value = used[1]
        for k in range(count):
            arena[value + k] = out[at + k]
        used[1] += count
    cache[slot, 0], cache[slot, 1], cache[slot, 2] = word_0, word_1, word_2
    cache[slot, 3] = np.uint64(value << 8 | count)
    used[0] += 1


@kernel(
    [
        "int64(uint8[::1], int64[::1], uint8[::1], uint8[::1], int32[::1], int64, int64[::1],"
        f" int32[::1], int32[::1], int32[::1], int64, uint64[:, ::1], int32[::1], int64[::1],"
        f" int32[:, ::1], int64, {ids}[::1], int64[::1])"
        for ids in ("uint16", "uint32")
    ]
)
def encode(
    text: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    joins: npt.NDArray[np.uint8],
    wide: npt.NDArray[np.uint8],
    symbol_of: npt.NDArray[np.int32],
    symbols: int,
    table_keys: npt.NDArray[np.int64],
    table_pieces: npt.NDArray[np.int32],
    rank: npt.NDArray[np.int32],
    byte_ids: npt.NDArray[np.int32],
    eos_id: int,
    cache: npt.NDArray[np.uint64],
    arena: npt.NDArray[np.int32],
    used: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.int32],
    first: int,
    out: npt.NDArray[np.unsignedinteger],
    cuts: npt.NDArray[np.int64],
) -> int:
    """Encode documents `first` and on, each with EOS.

    Args:
        text, offsets: n documents; document i is `text[offsets[i]:offsets[i + 1]]`, UTF-8.
        joins: uint8[128 * 128], 1 where a piece holds two ASCII characters side by side.
        wide: uint8[a power of two], the same for other pairs by `wide_slot`; a collision only
            makes a segment longer.
        symbol_of: int32[0x110000], a character's symbol (its id if it is a piece), or -1.
        symbols: number of symbols; those from `len(rank)` on are no pieces.
        table_keys, table_pieces: see `fill_pairs`; left · symbols + right → piece.
        rank: int32[vocabulary], 0 for the highest score.
        byte_ids: int32[256], ids of the byte pieces.
        eos_id: the id that ends a document.
        cache: uint64[slots, 4], segment (3 words, the length in the last byte) and its ids: the id
            and 1, or place in `arena` and count, in the high bits and the low 8; 0: empty.
        arena: int32, ids of segments that have several.
        used: int64[2], entries of `cache` and of `arena` in use.
        scratch: int32[4, MAX_SYMBOLS + 1].
        out: room for an id a byte and one a document.
        cuts: int64[n + 1]; `cuts[first]` says where in `out` to start, later ones are written.

    Returns:
        -1, or the document that has a segment of more than `MAX_SYMBOLS` characters: nothing is
        written of it.
    """
    address = np.uint64(text.ctypes.data)
    for document in range(first, len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        at = cuts[document]
        point, size = _decode(text, start, end)
        while start < end:
            if point == _SPACE:
                for k in range(start, start + size):
                    out[at] = byte_ids[text[k]]
                    at += 1
                start += size
                point, size = _decode(text, start, end)
                continue
            stop, point, size = _segment_end(text, start + size, end, point, joins, wide)
            length = stop - start
            slot, count = np.int64(-1), np.int64(0)
            word_0, word_1, word_2 = _ZERO, _ZERO, _ZERO
            if length <= MAX_KEY:
                word_0, word_1, word_2 = _words(text, address, start, length)
                slot = _find(cache, word_0, word_1, word_2)
                value = np.int64(cache[slot, 3])
                count = value & 255
                value >>= 8
                if count == 1:
                    out[at] = value
                for k in range(count if count > 1 else 0):
                    out[at + k] = arena[value + k]
            if count == 0:
                count = _merge(
                    text, start, stop, symbol_of, symbols, table_keys, table_pieces, rank, byte_ids,
                    scratch, out, at,
                )  # fmt: skip
                if count < 0:
                    return document
                if slot >= 0:
                    _keep(cache, arena, used, slot, word_0, word_1, word_2, out, at, count)
            at += count
            start = stop
        out[at] = eos_id
        cuts[document + 1] = at + 1
    return -1
