"""`word-v1`, `char-v1`, `space-v1` over UTF-8: documents as streams of 64-bit element hashes.

An element is a word (see `dedup.characters`); for `char-v1` one folded character of a word, with
one space between words that were apart; for `space-v1` what stands between white space, case and
punctuation included (Python's `str.split`, what most published figures count).

A word's hash takes its folded text in chunks: up to eight ASCII characters, or one other code
point. So nearly every ASCII word costs one load, one mask and one multiplication, where it is
found with bit masks over blocks of 64 bytes; what is not ASCII goes character by character.

Bytes that are not UTF-8 separate words; nothing is read outside a document.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.characters import CLOSING, FOLDED, SINGLE, TABLE_SIZE, character_table
from dedup.config import Unit
from dedup.vector import BLOCK, load_word, range_mask, trailing_zeros
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

WORD, CHAR, SPACE = 0, 1, 2
WORD_SEED = np.uint64(0x9E3779B97F4A7C15)
_SINGLE = np.uint32(SINGLE)
_CLOSING = np.uint32(CLOSING)
_FOLDED = np.uint32(FOLDED)
_SPACE = 0x20
_WIDE = np.uint64(1 << 63)  # marks a chunk that is one code point, not ASCII bytes
_LOWER = np.uint64(0x2020202020202020)  # what makes ASCII letters small and leaves digits alone


class Tables(NamedTuple):
    """What the kernels look characters up in."""

    characters: UInt32
    """`character_table()`."""
    ascii: UInt64
    """uint64[128]: mixed hash of the folded ASCII character, 0 for a separator; for `space-v1`
    uint64[256]: mixed hash of each byte, 0 for ASCII white space."""


@cache
def tables(unit: Unit = "word") -> Tables:
    """Return the look-up tables of a unit, made once a process."""
    characters = character_table()
    if unit == "space":
        space = {0x20, *range(0x09, 0x0E)}
        mixed = [0 if byte in space else splitmix64(byte) for byte in range(256)]
        return Tables(characters, np.array(mixed, dtype=np.uint64))
    mixed = [splitmix64(code) if code else 0 for code in characters[:128].tolist()]
    return Tables(characters, np.array(mixed, dtype=np.uint64))


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
    if code < (0, 0x80, 0x800, 0x10000)[width - 1]:
        return -1, 1  # longer than it must be
    return code, width


@inline
def _lookup(characters: UInt32, code: int) -> np.uint32:
    """Return the table entry of a code point (see `dedup.characters`)."""
    if code < 0:
        return np.uint32(0)
    if code < TABLE_SIZE:
        return np.uint32(characters[code])
    return np.uint32(code) | _SINGLE if code < 0x40000 else np.uint32(0)


@inline
def _step(h: np.uint64, chunk: np.uint64) -> np.uint64:
    """Take one chunk into a word's hash: a bijection of either."""
    h = (h ^ chunk) * np.uint64(0x9FB21C651E98DF25)
    return h ^ (h >> np.uint64(32))


@inline
def _read_ascii_block(data: UInt8, at: int, out: UInt64, count: int) -> tuple[int, int]:
    """Hash the words of the block at `at` that are ASCII and end in it, as far as `out` has room.

    `at` is not inside a word, and `BLOCK` + 8 bytes can be read. Returns (where to go on, new
    count); that is `at` where the first word is too long or not all ASCII.
    """
    not_ascii = range_mask(data, at, 0x80, 0xFF)
    letters = (
        range_mask(data, at, 0x61, 0x7A)
        | range_mask(data, at, 0x41, 0x5A)
        | range_mask(data, at, 0x30, 0x39)
    )
    limit = BLOCK if not_ascii == 0 else trailing_zeros(not_ascii)
    base = 0
    while letters != 0 and count < out.size:
        start = base + trailing_zeros(letters)
        if start >= limit:
            break
        rest = ~(letters >> np.uint64(start - base))
        length = BLOCK if rest == 0 else trailing_zeros(rest)
        stop = start + length
        if stop >= limit:
            return at + start, count
        h = WORD_SEED
        place = at + start
        while length > 8:
            h = _step(h, load_word(data, place) | _LOWER)
            place += 8
            length -= 8
        low = np.uint64(64 - 8 * length)
        h = _step(h, ((load_word(data, place) | _LOWER) << low) >> low)
        out[count] = h
        count += 1
        letters = letters >> np.uint64(stop - base)
        base = stop
    return at + (base if count == out.size else limit), count


@kernel(f"UniTuple(int64, 2)({BYTES}, int64, int64, {U32}, {U64}, uint64[::1], int64)")
def read_words(
    data: UInt8, at: int, end: int, characters: UInt32, ascii_: UInt64, out: UInt64, count: int
) -> tuple[int, int]:
    """Write word hashes of `data[at:end]` to `out[count:]` until the text or the room ends.

    `at` must not be inside a word. Returns (position to go on from, new count).
    """
    room = out.size
    h, chunk, bits = WORD_SEED, np.uint64(0), np.uint64(0)
    inside = False
    closing = False  # the last character ends a word, unless one more mark follows
    while at < end and count < room:
        if not inside and at + BLOCK + 8 <= end and data[at] < 0x80:
            before = at
            at, count = _read_ascii_block(data, at, out, count)
            closing = False
            if at > before:
                continue
        code, width = int(np.int64(data[at])), 1
        if code >= 0x80:
            code, width = _decode(data, at, end)
        entry = _lookup(characters, code)
        marks = entry & _CLOSING != 0
        if inside and (entry == 0 or entry & _SINGLE or (closing and not marks)):
            out[count] = h if bits == 0 else _step(h, chunk)
            count += 1
            h, chunk, bits = WORD_SEED, np.uint64(0), np.uint64(0)
            inside = False
            if count == room:
                break
        closing = marks
        folded = np.uint64(entry & _FOLDED)
        if entry & _SINGLE:
            out[count] = _step(h, folded | _WIDE)
            count += 1
        elif entry != 0:
            inside = True
            if folded < 0x80:
                chunk |= folded << bits
                bits += np.uint64(8)
            if bits == 64 or (folded >= 0x80 and bits > 0):
                h, chunk, bits = _step(h, chunk), np.uint64(0), np.uint64(0)
            if folded >= 0x80:
                h = _step(h, folded | _WIDE)
        at += width
    if inside:
        out[count] = h if bits == 0 else _step(h, chunk)
        count += 1
    return at, count


@kernel(f"int64({BYTES}, int64, int64, {U32}, {U64}, int64[::1], int64[::1])")
def read_word_spans(
    data: UInt8, at: int, end: int, characters: UInt32, ascii_: UInt64, starts: Int64, ends: Int64
) -> int:
    """Write where the words of `data[at:end]` start and end (bytes of `data`); return how many.

    The words are those of `read_words`, at several times its price: for the few documents whose
    words have to be shown. `starts` and `ends` have room for all (`max_elements`).
    """
    one = np.empty(1, dtype=np.uint64)
    count = 0
    while at < end:
        code, width = int(np.int64(data[at])), 1
        if code >= 0x80:
            code, width = _decode(data, at, end)
        if _lookup(characters, code) == 0:
            at += width
            continue
        starts[count] = at
        at, _ = read_words(data, at, end, characters, ascii_, one, 0)
        ends[count] = at
        count += 1
    return count


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
            out[count] = _mix(np.uint64(entry & _FOLDED))
            count += 1
        at += width
    if gap_at >= 0 and at < end:
        at = gap_at
    return at, count


@inline
def space_width(data: UInt8, at: int, end: int) -> int:  # noqa: PLR0911 (one per lead byte)
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


@kernel(f"UniTuple(int64, 2)({BYTES}, int64, int64, {U64}, uint64[::1], int64)")
def read_spaced(
    data: UInt8, at: int, end: int, bytes_: UInt64, out: UInt64, count: int
) -> tuple[int, int]:
    """Write `space-v1` hashes of `data[at:end]` to `out[count:]` until text or room ends.

    `at` must not be inside a word. Returns (position to go on from, new count).
    """
    h = WORD_SEED
    inside = 0
    while at < end and count < out.size:
        value = bytes_[data[at]]
        width = 1
        if 0xC2 <= data[at] <= 0xE3:
            width = space_width(data, at, end)
            value = value if width == 0 else np.uint64(0)
            width = max(width, 1)
        out[count] = h
        part = int(value != 0)
        count += inside & (1 - part)
        h = ((h << np.uint64(5)) | (h >> np.uint64(59))) + value if part else WORD_SEED
        inside = part
        at += width
    if inside:
        out[count] = h
        count += 1
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
    """`read_words`, `read_characters` or `read_spaced`, by `unit`."""
    if unit == WORD:
        return read_words(data, at, end, characters, ascii_, out, count)
    if unit == SPACE:
        return read_spaced(data, at, end, ascii_, out, count)
    return read_characters(data, at, end, characters, out, count, first)


def unit_code(unit: Unit) -> int:
    """Return the kernels' number for a unit."""
    return {"word": WORD, "char": CHAR, "space": SPACE}[unit]


def max_elements(n_bytes: int, unit: Unit) -> int:
    """Return how many elements `n_bytes` of text can have at most.

    A word takes a byte and, unless it is the last, a separator; one that stands by itself, at
    least three bytes.
    """
    return n_bytes if unit == "char" else (n_bytes + 1) // 2
