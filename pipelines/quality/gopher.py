"""The Gopher quality rules as signals (Rae et al. 2021, arXiv:2112.11446, section A.1.1).

The paper names the rules but not what a word or a line is. Here:

* a *word* is a longest run of characters that are no white space (as Python's `str.split()`);
* a *line* ends at "\\n" and counts if it has a character that is no white space;
* an *ellipsis* is "..." (counted from the left, without overlap) or "…";
* a *bullet line* begins, after white space, with "•", "-" or "*";
* an *ellipsis line* ends, before white space, with an ellipsis;
* a *stop word* is one of the paper's eight; it counts once, whatever its (ASCII) case, and with
  what stands around its first and last letter taken off ("the," and "(The" are "the").

datatrove differs: it splits words with a language model's tokenizer and counts those with a
character that is no punctuation, counts blank lines too, knows no "*" bullet, and matches stop
words in lower case only. Other implementations differ in other ways, so a threshold carries over
from one to another only roughly.
"""

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, classes
from pipelines.quality.runs import EVENTS, PIECE_BYTES, decode, find_events
from shards.jit import inline, kernel

VERSION = f"gopher-quality-v1 (Unicode {UNICODE})"

CHARS, WORDS, WORD_CHARS, HASHES, ELLIPSES = range(5)
LINES, BULLET_LINES, ELLIPSIS_LINES, ALPHABETIC_WORDS, STOP_WORDS = range(5, 10)
COUNTS = 10

_THE, _BE, _TO, _OF, _AND, _THAT, _HAVE, _WITH = (
    int.from_bytes(word, "big")
    for word in (b"the", b"be", b"to", b"of", b"and", b"that", b"have", b"with")
)
_CLASSES = classes()


@inline
def _stop_word(data: npt.NDArray[np.uint8], begin: int, end: int) -> int:
    """Return the bit of the stop word at `data[begin:end]`, 0 if it is none.

    Without branches, which a processor would guess wrong once a word.
    """
    length, last = end - begin, end - 1
    word = (
        (int(data[begin]) << 24)
        | (int(data[min(begin + 1, last)]) << 16)
        | (int(data[min(begin + 2, last)]) << 8)
        | int(data[min(begin + 3, last)])
    )
    key = ((word | 0x20202020) >> (8 * (4 - min(length, 4)))) | (0 if length <= 4 else -1)
    return (
        (key == _THE)
        | (key == _BE) << 1
        | (key == _TO) << 2
        | (key == _OF) << 3
        | (key == _AND) << 4
        | (key == _THAT) << 5
        | (key == _HAVE) << 6
        | (key == _WITH) << 7
    )


@kernel("void(uint8[::1], int64[::1], uint8[::1], int64[:, ::1])")
def _count(  # noqa: PLR0912, PLR0915 - one pass with all its state in registers
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> None:
    """Fill `counts[n, COUNTS]` in one pass over UTF-8; arguments as in `count`."""
    events = np.empty(PIECE_BYTES + 1, np.int64)
    for i in range(offsets.shape[0] - 1):
        end = offsets[i + 1]
        chars = words = word_chars = hashes = ellipses = 0
        lines = bullets = ellipsis_lines = alphabetic = stops = 0
        in_word = line_begun = line_trails_off = False
        dots = 0  # dots that end here
        first_letter = after_letter = -1  # of the word
        at = piece = offsets[i]
        while piece <= end:
            piece_end = min(piece + PIECE_BYTES, end)
            for k in range(find_events(data, piece, piece_end, end, events, EVENTS)):
                event = events[k]
                if event > at:  # ASCII letters stand before it
                    chars += event - at
                    word_chars += event - at
                    in_word = line_begun = True
                    line_trails_off = False
                    dots = 0
                    if first_letter < 0:
                        first_letter = at
                    after_letter = event
                # The end closes the last word and the last line, like a newline that is not
                # counted.
                point, at = decode(data, event, end)
                chars += event < end
                kind = classes[point] if point < classes.shape[0] else 0
                if kind == 1:  # SPACE
                    if in_word:
                        words += 1
                        in_word = False
                        if first_letter >= 0:
                            alphabetic += 1
                            stops |= _stop_word(data, first_letter, after_letter)
                            first_letter = -1
                    dots = 0
                    if point == 0x0A:
                        lines += line_begun
                        ellipsis_lines += line_trails_off
                        line_begun = line_trails_off = False
                    continue
                in_word = True
                word_chars += 1
                if not line_begun:
                    line_begun = True
                    if point in (0x2022, 0x2D, 0x2A):  # • - *
                        bullets += 1
                if kind == 2:  # ALPHABETIC
                    if first_letter < 0:
                        first_letter = event
                    after_letter = at
                if point == 0x2E:  # .
                    dots += 1
                    if dots % 3 == 0:
                        ellipses += 1
                    line_trails_off = dots >= 3
                else:
                    dots = 0
                    line_trails_off = point == 0x2026  # …
                    ellipses += line_trails_off
                    hashes += point == 0x23  # #
            piece = piece_end if piece_end < end else end + 1
        row = counts[i]
        row[0], row[1], row[2], row[3], row[4] = chars, words, word_chars, hashes, ellipses
        row[5], row[6], row[7], row[8] = lines, bullets, ellipsis_lines, alphabetic
        row[9] = 0
        while stops:
            row[9] += stops & 1
            stops >>= 1


def count(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count what the rules are made of.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        int64 (n, COUNTS), columns CHARS … STOP_WORDS.
    """
    counts = np.empty((len(offsets) - 1, COUNTS), np.int64)
    _count(data, offsets, _CLASSES, counts)
    return counts


def share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Divide counts once, in float64, and round to float32; 0 where there is nothing to divide."""
    return (part / np.maximum(whole, 1)).astype(np.float32)
