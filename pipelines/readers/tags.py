"""Start tags with too many attributes and pages with too many names, found in any HTML.

Whether a `<` and a letter begin a tag depends on what is around them, which only a parser of the
whole page knows. So each is taken for a tag, all at once: of the tags that are in one state of the
tokenizer at a byte, only that with most attributes counts, since all go on alike. That is linear,
and no comment, script or quote hides a tag from it.
"""

import numpy as np
import numpy.typing as npt

from shards.jit import inline, kernel

_TAG_NAME, _BEFORE, _NAME, _AFTER, _BEFORE_VALUE, _DOUBLE, _SINGLE, _BARE = range(8)
_DEAD = 8


def _next(state: int, byte: int) -> int:  # noqa: PLR0911 - the standard's state machine
    """Return the tokenizer's next state in a tag (WHATWG HTML, 13.2.5.8 and 13.2.5.32 to 39)."""
    if state == _DOUBLE:
        return _BEFORE if byte == 0x22 else _DOUBLE
    if state == _SINGLE:
        return _BEFORE if byte == 0x27 else _SINGLE
    if byte == 0x3E:  # >
        return _DEAD
    blank = byte == 0x20 or (0x09 <= byte <= 0x0D and byte != 0x0B)
    if state == _BARE:
        return _BEFORE if blank else _BARE
    if state == _BEFORE_VALUE:
        if blank:
            return _BEFORE_VALUE
        if byte == 0x22:
            return _DOUBLE
        return _SINGLE if byte == 0x27 else _BARE
    if byte == 0x2F:  # /
        return _BEFORE
    if state == _TAG_NAME:
        return _BEFORE if blank else _TAG_NAME
    if state == _BEFORE:
        return _BEFORE if blank else _NAME
    if blank:
        return _AFTER
    return _BEFORE_VALUE if byte == 0x3D else _NAME


_NEXT = np.array([[_next(state, byte) for byte in range(256)] for state in range(8)], np.uint8)


_PLAIN = np.array([byte not in b"\t\n\f\r \"'/<=>" for byte in range(256)])
"""Bytes that leave a tag where it is, unless a name or value begins with them."""
_PARTS = np.array([byte in b"\t\n\f\r /<=>" for byte in range(256)])
"""Bytes that part names."""


@inline
def _begins(data: npt.NDArray[np.uint8], at: int) -> bool:
    """Tell whether a byte is the first of a tag's name."""
    if at < 1 or not 0x61 <= (data[at] | 0x20) <= 0x7A:
        return False
    return data[at - 1] == 0x3C or (data[at - 1] == 0x2F and at > 1 and data[at - 2] == 0x3C)


@kernel("int64(uint8[::1], int64, int64[:, ::1])")
def long_tags(  # noqa: PLR0912, PLR0915 - one state machine, with its fast paths
    data: npt.NDArray[np.uint8], most: int, cuts: npt.NDArray[np.int64]
) -> int:
    """Find what must go so that no tag has more than so many attributes.

    Args:
        data: uint8, a page in UTF-8.
        most: attributes of a tag.
        cuts: int64 (len(data) // (most + 1) + 1, 2), overwritten with first and last byte + 1 of
            what is too much. Without it another tag may be too long: look again.

    Returns:
        The number of cuts.
    """
    found = 0
    counts = np.full(9, -1, np.int64)
    after = np.full(9, -1, np.int64)
    live = 0
    settled = False  # a plain byte that follows one changes nothing
    state = count = 0  # of the one tag while there is but one
    size = data.shape[0]
    at = 0
    while at < size:
        if live == 0:
            at += 1
            while at < size and not (data[at - 1] < 0x40 and _begins(data, at)):
                at += 1
            state, count, live, settled = _TAG_NAME, 0, 1, True
            at += 1
            continue
        byte = data[at]
        if settled and _PLAIN[byte] and _PLAIN[data[at - 1]]:
            at += 1
            continue
        if live == 1:
            to = _NEXT[state, byte]
            if to == _DEAD:
                live = 0
            else:
                count += to == _NAME and state != _NAME
                if to != _TAG_NAME and byte > 0x40 and _begins(data, at):
                    counts[:] = -1
                    counts[to] = count
                    counts[_TAG_NAME] = 0
                    live = 2
            state = to
            settled = state not in (_BEFORE, _AFTER, _BEFORE_VALUE)
        else:
            after[:] = -1
            for one in range(8):
                if counts[one] >= 0:
                    to = _NEXT[one, byte]
                    after[to] = max(after[to], counts[one] + (to == _NAME and one != _NAME))
            counts, after = after, counts
            if _begins(data, at):
                counts[_TAG_NAME] = max(counts[_TAG_NAME], 0)
            live = 0
            for one in range(8):
                if counts[one] >= 0:
                    live += 1
                    state, count = one, counts[one]
            settled = counts[_BEFORE] + counts[_AFTER] + counts[_BEFORE_VALUE] == -3
        if live and (count if live == 1 else counts[_NAME]) > most:
            state = _NAME
            cuts[found, 0] = at
            while state != _DEAD and at + 1 < size:
                at += 1
                state = _NEXT[state, data[at]]
            cuts[found, 1] = at if state == _DEAD else size
            found += 1
            live, settled = 0, False
        at += 1
    return found


@kernel("int64(uint8[::1], uint64[::1])")
def count_names(  # noqa: PLR0912 - as above
    data: npt.NDArray[np.uint8], seen: npt.NDArray[np.uint64]
) -> int:
    """Count the names of tags and attributes that a page may have.

    A name is what stands between two of `<`, `>`, `/`, `=` and white space, in what may be a tag:
    from a `<` and a letter up to a `>` behind which no quote is open.

    Args:
        data: uint8, a page in UTF-8.
        seen: uint64 (a power of two), zeros: a hash table. Counting ends when half of it is full.
    """
    found = 0
    states = 0  # a bit for each that a tag may be in
    start = np.uint64(14695981039346656037)  # FNV-1a
    hashed = start
    unsettled = 1 << _BEFORE | 1 << _AFTER | 1 << _BEFORE_VALUE
    named = False
    mask = np.uint64(seen.shape[0] - 1)
    for at in range(data.shape[0]):
        byte = data[at]
        if not states and (byte < 0x40 or not _begins(data, at)):
            named, hashed = False, start
            continue
        if not states & unsettled and _PLAIN[byte] and _PLAIN[data[at - 1]]:
            hashed = (hashed ^ np.uint64(byte)) * np.uint64(1099511628211)
            continue
        after = 0
        if states:
            for one in range(8):
                if states >> one & 1:
                    after |= 1 << _NEXT[one, byte]
        if byte > 0x40 and _begins(data, at):
            after |= 1 << _TAG_NAME
        if _PARTS[byte]:
            if named:
                slot = (hashed ^ (hashed >> np.uint64(29))) & mask
                while seen[slot] != 0 and seen[slot] != hashed:
                    slot = (slot + np.uint64(1)) & mask
                if seen[slot] == 0:
                    seen[slot] = hashed
                    found += 1
                    if 2 * found >= seen.shape[0]:
                        return found
            hashed, named = start, False
        else:
            hashed = (hashed ^ np.uint64(byte)) * np.uint64(1099511628211)
            named = named or (after & (1 << _TAG_NAME | 1 << _NAME)) != 0
        states = after & 255
    return found
