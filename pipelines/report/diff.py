"""Two texts side by side: where they begin to differ, and what is not in the other one."""

import difflib
import re
from typing import NamedTuple

WINDOW = 1100
"""Characters of each text that are shown; twice as many are compared, so that the ends match."""

LEAD = 160
"""Characters shown before the first difference, so that it has a context."""

_PIECES = re.compile(r"\w+|\s+|[^\w\s]")


class Segment(NamedTuple):
    """A run of text; `changed` means that the other text does not have it here."""

    text: str
    changed: bool


class SideBySide(NamedTuple):
    """Both windows cut into segments, and how many characters lie before and after each."""

    left: list[Segment]
    right: list[Segment]
    before: int
    left_after: int
    right_after: int


def side_by_side(left: str, right: str) -> SideBySide:
    """Compare two texts word by word, in a window that begins shortly before they differ.

    White space counts as equal, however much there is of it: dedup does not look at it either.
    The windows begin at the same place, since what is before it is equal.
    """
    common = _common_prefix(left, right)
    start = 0 if common <= LEAD or left == right else _word_start(left, common - LEAD)
    a, b = (_PIECES.findall(text[start : start + 2 * WINDOW]) for text in (left, right))
    first, second = (_head(segments) for segments in _compare(a, b))
    return SideBySide(
        first,
        second,
        before=start,
        left_after=len(left) - start - _length(first),
        right_after=len(right) - start - _length(second),
    )


def _common_prefix(left: str, right: str) -> int:
    """Return how many characters two texts begin with in common."""
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def _word_start(text: str, place: int) -> int:
    """Return the start of the word after the first white space at or after `place`."""
    space = re.compile(r"\s+").search(text, place, place + 40)
    return space.end() if space else place


def _compare(a: list[str], b: list[str]) -> tuple[list[Segment], list[Segment]]:
    left: list[Segment] = []
    right: list[Segment] = []
    first, second = ([" " if piece.isspace() else piece for piece in side] for side in (a, b))
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        for side, pieces in ((left, a[a0:a1]), (right, b[b0:b1])):
            if pieces:
                side.append(Segment("".join(pieces), kind != "equal"))
    return left, right


def _head(segments: list[Segment]) -> list[Segment]:
    """Cut segments after `WINDOW` characters."""
    result, left = [], WINDOW
    for text, changed in segments:
        if left <= 0:
            break
        result.append(Segment(text[:left], changed))
        left -= len(text)
    return result


def _length(segments: list[Segment]) -> int:
    return sum(len(segment.text) for segment in segments)
