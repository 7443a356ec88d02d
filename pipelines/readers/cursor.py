"""Lines and bytes of a stream of pieces, and where in it a WARC record may begin.

A stream is read forward once. A second time it is opened only where a record's length turned out
wrong when its content, too large to be held, had gone by; then all of it goes by first and the
places where records may begin are noted, so that nothing has to be looked for again.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator

from pipelines.readers.streams import Gap, Piece

MOST_LINE_BYTES = 64 << 10

_BLANK_BYTES = 64
"""White space that may part two records (there should be four bytes)."""
_HEAD = re.compile(rb"WARC/[0-9][0-9.]{0,8}[ \t]{0,4}\r?\n")
"""The first line of a record, whose version is the line's only content."""
_HEAD_BYTES = 20
_MAGIC = b"WARC/"
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_BEHIND_BYTES = _BLANK_BYTES + _HEAD_BYTES
_MOST_STARTS = 1 << 21
"""Places that are noted, 8 bytes each; lengths that reach behind the last are believed."""
_MOST_READS = 4
"""Times that a stream is opened; a second of them is enough unless gaps are in it."""


class Starts:
    """Where records may begin, found in bytes that go by.

    An entry holds the place, how much white space is before it, and whether it begins a line.
    """

    def __init__(self, position: int) -> None:
        self._tail = b"\n"  # what ends the record's head
        self._position = position - 1
        self._entries = array("q")
        self.full = False

    @property
    def until(self) -> int:
        """What is before this byte was looked through."""
        if self.full:
            return self._entries[-1] >> 8
        return self._position + len(self._tail)

    def add(self, piece: bytes | bytearray | memoryview) -> None:
        """Look through the next bytes."""
        data = self._tail + piece
        last = self._entries[-1] >> 8 if self._entries else -1
        for head in _HEAD.finditer(data):
            at = head.start()
            if self._position + at > last and not self.full:
                before = data[max(at - _BLANK_BYTES, 0) : at]
                blank = len(before) - len(before.rstrip())
                line = before.endswith(b"\n")
                self._entries.append((self._position + at) << 8 | blank << 1 | line)
                self.full = len(self._entries) >= _MOST_STARTS
        self._position += max(len(data) - _BEHIND_BYTES, 0)
        self._tail = data[-_BEHIND_BYTES:]

    def first(self, begin: int, end: int) -> int | None:
        """Return the first line of `[begin, end)` that may begin a record."""
        for k in range(bisect_left(self._entries, begin << 8), len(self._entries)):
            if self._entries[k] >> 8 >= end:
                break
            if self._entries[k] & 1:
                return self._entries[k] >> 8
        return None

    def across(self, behind: bytes) -> int | None:
        """Return the line at the end of what was added that may begin a record whose first line
        ends in the bytes behind it.
        """
        data = self._tail + behind
        for head in _HEAD.finditer(data):
            at = head.start()
            if at < len(self._tail) < head.end() and data[at - 1 : at] == b"\n":
                return self._position + at
        return None

    def begins(self, position: int) -> bool:
        """Tell whether a record begins at a position, or nothing that was added is behind it."""
        follows = bisect_left(self._entries, position << 8)
        if follows == len(self._entries):
            return position >= self._position + len(self._tail.rstrip())
        blank = self._entries[follows] >> 1 & 127
        return (self._entries[follows] >> 8) - blank <= position


class Cursor:
    """Reads a stream up to its end or to a gap, whichever is first."""

    def __init__(self, open_pieces: Callable[[], Iterator[Piece]]) -> None:
        self._open = open_pieces
        self._pieces = open_pieces()
        self._reads = 1
        self._buffer = bytearray()
        self._at = 0
        self._begin = 0
        self._starts: Starts | None = None
        self.gap: Gap | None = None
        self.end: int | None = None
        """Where the stream ends, or the next gap stands, once that was seen."""

    @property
    def position(self) -> int:
        """Decompressed byte of the next byte."""
        return self._begin + self._at

    def _more(self) -> bool:
        """Read a piece; False at the end and at a gap, which stays there until `resume`."""
        if self.gap is not None:
            return False
        piece = next(self._pieces, None)
        if piece is None or isinstance(piece, Gap):
            self.gap = piece
            self.end = self._begin + len(self._buffer)
            return False
        # The front of a bytearray goes without a copy of the rest.
        del self._buffer[: self._at]
        self._begin += self._at
        self._at = 0
        self._buffer += piece
        return True

    def resume(self) -> bool:
        """Go on behind the gap; False where the stream ended there."""
        gap, self.gap, self.end, self._starts = self.gap, None, None, None
        if gap is None or gap.resume is None:
            return False
        self._buffer.clear()
        self._at, self._begin = 0, gap.resume
        return True

    def line(self) -> bytes | None:
        """Return the next line with its end, at most `MOST_LINE_BYTES` of it; None at the end."""
        while True:
            end = self._buffer.find(b"\n", self._at, self._at + MOST_LINE_BYTES) + 1
            length = (end or len(self._buffer)) - self._at
            if end or length >= MOST_LINE_BYTES or not self._more():
                break
        return self.read(min(length, MOST_LINE_BYTES)) or None

    def fill(self, size: int) -> bool:
        """Hold the next `size` bytes in memory; False if there are fewer. Nothing is read away."""
        while len(self._buffer) - self._at < size:
            if not self._more():
                return False
        return True

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, which are held."""
        with memoryview(self._buffer) as view:
            found = bytes(view[self._at : self._at + size])
        self._at += len(found)
        return found

    def drop(self, size: int, starts: Starts | None = None) -> bool:
        """Read `size` bytes away, into `starts` if given; False if there are fewer."""
        while size:
            there = min(size, len(self._buffer) - self._at)
            if starts is not None:
                starts.add(self._buffer[self._at : self._at + there])
            self._at += there
            size -= there
            if size and not self._more():
                return False
        return True

    def wrong(self, size: int, *, held: bool) -> int | None:
        """Tell where the next record begins if it does inside the next `size` bytes.

        Args:
            size: bytes that a record says it has.
            held: they may be held in memory.

        Returns:
            None if behind them a record begins or nothing is left, or no line in them begins a
            record; also if there are fewer, and then `end` is before theirs. Where they are held,
            or a place is returned, the cursor has not moved; else they are read away.
        """
        begin = self.position
        if held:
            self.fill(size + _BEHIND_BYTES)
            if self._begins_record(size):
                return None
            end = self._at + size
            for head in _HEAD.finditer(self._buffer, self._at, end + _HEAD_BYTES):
                at = head.start()
                if at < end and (at == self._at or self._buffer[at - 1] == 0x0A):
                    return self._begin + at
            return None
        if self._starts is None or self._starts.until < begin + size:
            starts = Starts(begin)
            if not self.drop(size, starts):
                self._starts = starts  # of all that is left
                return None
            self.fill(_BEHIND_BYTES)
            behind = bytes(self._buffer[self._at : self._at + _HEAD_BYTES])
            inside = None
            if not self._begins_record(0):
                inside = starts.first(begin, begin + size) or starts.across(behind)
            return inside if inside is not None and self._look_ahead(starts, begin) else None
        known = self._starts.begins(begin + size)
        inside = None if known else self._starts.first(begin, begin + size)
        if inside is None:
            self.drop(size)
        return inside

    def _begins_record(self, offset: int) -> bool:
        """Tell whether a record begins, or nothing is left, so many bytes ahead."""
        at = self._at + offset
        behind = bytes(self._buffer[at : at + _BEHIND_BYTES]).lstrip()
        return not behind or _HEAD.match(behind) is not None

    def ends(self, size: int) -> bool:
        """Tell whether content of the next `size` bytes, which `wrong` has seen, may end there: a
        record, its first bytes, a blank line or nothing is behind.
        """
        at = self._at + size
        behind = bytes(self._buffer[at : at + _BEHIND_BYTES])
        begun = behind.lstrip()[: len(_MAGIC)]
        return _MAGIC.startswith(begun) or _BLANK_LINE.match(behind) is not None

    def _look_ahead(self, starts: Starts, position: int) -> bool:
        """Let the rest go by and go back to `position`; False if that was done too often."""
        if self._reads >= _MOST_READS:
            return False
        while self.drop(1 << 20, starts):
            pass
        self._starts = starts
        return self.back(position)

    def back(self, position: int) -> bool:
        """Read on from `position` in the stream, opened anew; False if that was done too often."""
        if self._reads >= _MOST_READS:
            return False
        self._reads += 1
        self._pieces, self.gap = self._open(), None
        self._buffer.clear()
        self._at, self._begin = 0, 0
        end, starts = self.end, self._starts
        while not self.drop(position - self.position) and self.resume():
            pass
        self.end, self._starts = end, starts
        return True
