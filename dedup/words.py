"""`word-v1` and `char-v1` over UTF-8: documents as streams of 64-bit element hashes.

An element is a word (see `dedup.characters`) or, for `char-v1`, one folded character of a word,
with one space between words that were apart. A word's hash starts at `WORD_SEED` and takes
h ← rotl(h, 5) + mix(character): two cycles a byte where a multiplication would cost four, and no
pass over the text to find the words first. ASCII runs without a data-dependent branch: the
current hash is stored at every byte and the index moves on only where a word ended.

Bytes that are not UTF-8 separate words; nothing is read outside a document.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.characters import SINGLE, TABLE_SIZE, character_table
from dedup.config import Unit
from shards.jit import inline, kernel

UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

# Arrow's buffers are read-only; a writable array converts to this type, not the other way round.
BYTES = "Array(uint8, 1, 'C', readonly=True)"
OFFSETS = "Array(int64, 1, 'C', readonly=True)"
U32 = "Array(uint32, 1, 'C', readonly=True)"
U64 = "Array(uint64, 1, 'C', readonly=True)"

WORD, CHAR = 0, 1
WORD_SEED = np.uint64(0x9E3779B97F4A7C15)
_SINGLE = np.uint32(SINGLE)
_SPACE = 0x20


class Tables(NamedTuple):
    """What the kernels look characters up in."""

    characters: UInt32
    """`character_table()`."""
    ascii: UInt64
    """uint64[128]: mixed hash of the folded ASCII character, 0 for a separator."""


@cache
def tables() -> Tables:
    """Return the look-up tables, made once a process."""
    characters = character_table()
    mixed = np.zeros(128, dtype=np.uint64)
    for code in range(128):
        if characters[code]:
            mixed[code] = splitmix64(int(characters[code]))
    return Tables(characters, mixed)


def splitmix64(value: int) -> int:
    """Return the splitmix64 output for state `value` (Steele et al. 2014): a 64-bit bijection."""
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


@inline
def _mix(code: np.uint64) -> np.uint64:
    """`splitmix64` in a kernel."""
    value = code + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inline
def _decode(data: UInt8, at: int, end: int) -> tuple[int, int]:
    """Decode the code point that starts at `at`: (code point, width); (-1, 1) if it is broken."""
    lead = data[at]
    if lead < 0xC2 or lead > 0xF4:
        return -1, 1
    width = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if at + width > end:
        return -1, 1
    code = int(np.int64(lead)) & (0xFF >> (width + 1))
    for place in range(at + 1, at + width):
        byte = int(np.int64(data[place]))
        if byte & 0xC0 != 0x80:
            return -1, 1
        code = (code << 6) | (byte & 0x3F)
    return code, width


@inline
def _lookup(characters: UInt32, code: int) -> np.uint32:
    """Return the table entry of a code point (see `dedup.characters`)."""
    if code < 0:
        return np.uint32(0)
    if code < TABLE_SIZE:
        return np.uint32(characters[code])
    return np.uint32(code) | _SINGLE if code < 0x40000 else np.uint32(0)


@kernel(f"UniTuple(int64, 2)({BYTES}, int64, int64, {U32}, {U64}, uint64[::1], int64)")
def read_words(
    data: UInt8, at: int, end: int, characters: UInt32, ascii_: UInt64, out: UInt64, count: int
) -> tuple[int, int]:
    """Write word hashes of `data[at:end]` to `out[count:]` until the text or the room ends.

    `at` must not be inside a word. Returns (position to go on from, new count).
    """
    room = out.size
    h = WORD_SEED
    inside = 0
    while at < end and count < room:
        byte = data[at]
        if byte < 128:
            value = ascii_[byte]
            out[count] = h
            part = int(value != 0)
            count += inside & (1 - part)
            h = ((h << np.uint64(5)) | (h >> np.uint64(59))) + value if part else WORD_SEED
            inside = part
            at += 1
            continue
        code, width = _decode(data, at, end)
        entry = _lookup(characters, code)
        if entry == 0 or entry & _SINGLE:
            if inside:
                out[count] = h
                count += 1
                h = WORD_SEED
                inside = 0
            if entry != 0:
                if count == room:
                    break
                value = _mix(np.uint64(entry & ~_SINGLE))
                out[count] = ((h << np.uint64(5)) | (h >> np.uint64(59))) + value
                count += 1
        else:
            h = ((h << np.uint64(5)) | (h >> np.uint64(59))) + _mix(np.uint64(entry))
            inside = 1
        at += width
    if inside:
        out[count] = h
        count += 1
    return at, count


@kernel(f"UniTuple(int64, 2)({BYTES}, int64, int64, {U32}, uint64[::1], int64, boolean)")
def read_characters(
    data: UInt8, at: int, end: int, characters: UInt32, out: UInt64, count: int, first: bool
) -> tuple[int, int]:
    """Write `char-v1` hashes of `data[at:end]` to `out[count:]` until text or room ends.

    `first` says that nothing of the document was written yet, so that no space leads. Returns
    (position to go on from, new count); the position stays before a separator that is pending.
    """
    room = out.size
    gap_at = -1
    while at < end and count < room:
        code, width = int(np.int64(data[at])), 1
        if code >= 128:
            code, width = _decode(data, at, end)
        entry = _lookup(characters, code)
        if entry == 0:
            if gap_at < 0:
                gap_at = at
        else:
            if gap_at >= 0 and not first:
                if count + 2 > room:
                    break
                out[count] = _mix(np.uint64(_SPACE))
                count += 1
            gap_at = -1
            first = False
            out[count] = _mix(np.uint64(entry & ~_SINGLE))
            count += 1
        at += width
    if gap_at >= 0 and at < end:
        at = gap_at
    return at, count


@inline
def read_elements(
    unit: int,
    data: UInt8,
    at: int,
    end: int,
    characters: UInt32,
    ascii_: UInt64,
    out: UInt64,
    count: int,
    first: bool,
) -> tuple[int, int]:
    """`read_words` or `read_characters`, by `unit` (`WORD` or `CHAR`)."""
    if unit == WORD:
        return read_words(data, at, end, characters, ascii_, out, count)
    return read_characters(data, at, end, characters, out, count, first)


def unit_code(unit: Unit) -> int:
    """Return the kernels' number for a unit."""
    return CHAR if unit == "char" else WORD


def max_elements(n_bytes: int, unit: Unit) -> int:
    """Return how many elements `n_bytes` of text can have at most.

    A word takes a byte and, unless it is the last, a separator; one that stands by itself, at
    least three bytes.
    """
    return n_bytes if unit == "char" else (n_bytes + 1) // 2
