r"""Lines of a stream of pieces, and which of them belong to a range.

A line ends at "\n" or at the end of the file, and belongs to the range in which its first byte
lies: the ranges of a file, of whatever size, give each line exactly once. So a reader that does
not begin at 0 begins one byte early, to see whether its first byte begins a line, and reads past
its end to finish its last line.
"""

from collections.abc import Iterable, Iterator

from pipelines.readers.streams import Gap, Piece

Line = tuple[int, bytes | Gap]
"""Decompressed position of a line's first byte, and the line without its newline, or a Gap."""


def lines(pieces: Iterable[Piece], start: int, end: int, max_bytes: int) -> Iterator[Line]:  # noqa: PLR0912 - one state machine, clearest in one place
    """Yield the lines whose first byte lies in `[start, end)`.

    Args:
        pieces: the stream from byte `max(start - 1, 0)` on.
        start: first decompressed byte of the range.
        end: the byte behind its last.
        max_bytes: a longer line becomes a Gap `record_too_large`, and is never held in memory.

    A Gap of the stream stands at the first byte of the line that it cuts. Where the stream goes
    on behind it, so do the lines, after the next newline: the rest of a cut line is no line.
    """
    position = max(start - 1, 0)
    first = position
    skipping = start > 0
    parts: list[bytes] = []
    held = 0
    for item in pieces:
        if isinstance(item, Gap):
            if not skipping:
                yield first, item
            if item.resume is None or item.resume >= end:
                return
            position, skipping, parts, held = item.resume, True, [], 0
            continue
        piece = item
        begin = position
        position += len(piece)
        if skipping:
            newline = piece.find(b"\n")
            if newline < 0:
                if position >= end:
                    return
                continue
            skipping = False
            first = begin + newline + 1
            piece = piece[newline + 1 :]
            if first >= end:
                return
        *complete, rest = piece.split(b"\n")
        for tail in complete:
            line = b"".join([*parts, tail]) if parts else tail
            parts, held = [], 0
            yield first, line if len(line) <= max_bytes else _too_large(max_bytes)
            first += len(line) + 1
            if first >= end:
                return
        if rest:
            parts.append(rest)
            held += len(rest)
            if held > max_bytes:
                yield first, _too_large(max_bytes)
                if position >= end:
                    return
                skipping, parts, held = True, [], 0
    if parts:
        yield first, b"".join(parts)


def _too_large(max_bytes: int) -> Gap:
    return Gap("record_too_large", f"the record is longer than {max_bytes} bytes", None)
