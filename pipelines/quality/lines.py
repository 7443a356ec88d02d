"""The line and page rules of C4 and FineWeb as signals.

C4 is Raffel et al. 2020 (arXiv:1910.10683, section 2.2), FineWeb Penedo et al. 2024
(arXiv:2406.17557, section 3.6). Most of C4's rules remove lines, not documents: here they are
shares of lines, and nothing is removed. Words and lines are `gopher.py`'s. Here:

* a *terminal mark* is ".", "!", "?" or an end quotation mark (C4's), '"' or "”";
* a *sentence* is a word that ends, before closing quotation marks and brackets, with ".", "!" or
  "?": no sentence splitter, whose model would have to be pinned, and no abbreviations known;
* phrases are found in any ASCII case, inside words too; a line that has one counts once;
* a *punctuated* line (FineWeb's) ends with ".", "!", "?", "'", '"', or one of "…”’»。！？｡؟۔।॥።։".
"""

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, classes
from shards.jit import inline, kernel

VERSION = f"c4-fineweb-lines-v1 (Unicode {UNICODE})"

TERMINAL_LINES, FEW_WORD_LINES, SENTENCES, JAVASCRIPT_LINES, POLICY_LINES = range(5)
LOREM_IPSUM, CURLY_BRACKETS, PUNCTUATED_LINES, SHORT_LINES = range(5, 9)
COUNTS = 9

FEW_WORDS = 3
"""A line of fewer words is removed by C4."""
SHORT_CHARS = 30
"""A line of fewer characters is short to FineWeb."""

_JAVASCRIPT, _LOREM, _POLICY = 1, 2, 4
PHRASES = (
    ("javascript", _JAVASCRIPT),
    ("lorem ipsum", _LOREM),
    ("terms of use", _POLICY),
    ("privacy policy", _POLICY),
    ("cookie policy", _POLICY),
    ("uses cookies", _POLICY),
    ("use of cookies", _POLICY),
    ("use cookies", _POLICY),
)
"""Phrase and what it is a sign of; the policy phrases are those of the published C4 code."""

_SPACE = 1
_SENTENCE, _CLOSING, _TERMINAL, _PUNCTUATED = 2, 4, 8, 16


def marks() -> npt.NDArray[np.uint8]:
    """Return uint8, one entry per code point: white space and bits for what a character ends."""
    table: npt.NDArray[np.uint8] = (classes() == _SPACE).astype(np.uint8)
    for characters, bit in (
        (".!?", _SENTENCE),
        ("\"')]”’»", _CLOSING),
        ('.!?"”', _TERMINAL),
        (".!?'\"…”’»。！？｡؟۔।॥።։", _PUNCTUATED),
    ):
        for character in characters:
            table[ord(character)] |= bit
    return table


_MARKS = marks()
_TEXTS = np.frombuffer("".join(text for text, _ in PHRASES).encode(), np.uint8).copy()
_CUTS = np.cumsum([0, *(len(text) for text, _ in PHRASES)]).astype(np.int64)
_SECONDS = np.zeros(32, np.uint8)
"""First letter of a phrase (its low 5 bits) → its second letter, the same for all."""
for _text, _ in PHRASES:
    _SECONDS[ord(_text[0]) & 0x1F] = ord(_text[1])
_SIGNS = np.array([sign for _, sign in PHRASES], np.int64)


@inline
def _phrase(
    data: npt.NDArray[np.uint8],
    at: int,
    end: int,
    texts: npt.NDArray[np.uint8],
    cuts: npt.NDArray[np.int64],
    signs: npt.NDArray[np.int64],
) -> int:
    """Return the sign of the phrase that begins at `at`, 0 if none does."""
    for k in range(signs.shape[0]):
        length = cuts[k + 1] - cuts[k]
        if at + length > end:
            continue
        matched = 0
        while matched < length:
            byte = data[at + matched]
            if 0x41 <= byte <= 0x5A:
                byte |= 0x20
            if byte != texts[cuts[k] + matched]:
                break
            matched += 1
        if matched == length:
            return int(signs[k])
    return 0


@kernel(
    "void(uint8[::1], int64[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], uint8[::1],"
    " int64[:, ::1])"
)
def _count(  # noqa: PLR0912, PLR0915 - one pass with all its state in registers
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    marks: npt.NDArray[np.uint8],
    texts: npt.NDArray[np.uint8],
    cuts: npt.NDArray[np.int64],
    signs: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> None:
    """Fill `counts[n, COUNTS]` in one pass over UTF-8; arguments as in `count`."""
    for i in range(offsets.shape[0] - 1):
        end = offsets[i + 1]
        terminal = few = sentences = javascript = policy = lorem = curly = punctuated = short = 0
        words = chars = last_char = found = 0  # of the line, from its first to its last word
        in_word = ends_sentence = False
        last = 0  # marks of the last character that is no white space
        at = offsets[i]
        # One step past the end closes the last word and the last line.
        while at <= end:
            start = at
            point = 0x0A
            if at < end:
                point = int(data[at])
            at += 1
            if point >= 0x80:
                extra = 1 if point < 0xE0 else 2 if point < 0xF0 else 3
                point &= 0x3F >> extra
                for _ in range(extra):
                    if at < end:
                        point = (point << 6) | (data[at] & 0x3F)
                        at += 1
            mark = marks[point] if point < marks.shape[0] else 0
            if mark & 1:
                if in_word:
                    in_word = False
                    if ends_sentence:
                        sentences += 1
                if point != 0x0A:
                    chars += words > 0
                    continue
                if words:
                    terminal += (last & 8) > 0
                    punctuated += (last & 16) > 0
                    few += words < FEW_WORDS
                    short += last_char < SHORT_CHARS
                    javascript += (found & 1) > 0
                    policy += (found & 4) > 0
                words = chars = last_char = found = 0
                continue
            if not in_word:
                in_word = True
                ends_sentence = False
                words += 1
            chars += 1
            last_char = chars
            last = mark
            if mark & 2:
                ends_sentence = True
            elif not mark & 4:
                ends_sentence = False
            letter = point | 0x20
            if (
                letter in (0x6A, 0x6C, 0x74, 0x70, 0x63, 0x75)  # j l t p c u
                and at < end
                and (data[at] | 0x20) == seconds[letter & 0x1F]
            ):
                sign = _phrase(data, start, end, texts, cuts, signs)
                found |= sign
                lorem += sign == 2
            elif point in (0x7B, 0x7D):
                curly += 1
        row = counts[i]
        row[0], row[1], row[2], row[3], row[4] = terminal, few, sentences, javascript, policy
        row[5], row[6], row[7], row[8] = lorem, curly, punctuated, short


def count(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count what the rules are made of.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        int64 (n, COUNTS), columns TERMINAL_LINES … SHORT_LINES.
    """
    counts = np.empty((len(offsets) - 1, COUNTS), np.int64)
    _count(data, offsets, _MARKS, _TEXTS, _CUTS, _SIGNS, _SECONDS, counts)
    return counts
