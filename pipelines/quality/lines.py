"""The line and page rules of C4 and FineWeb as signals.

C4 is Raffel et al. 2020 (arXiv:1910.10683, section 2.2), FineWeb Penedo et al. 2024
(arXiv:2406.17557, section 3.6). Most of C4's rules remove lines, not documents: here they are
shares of lines, and nothing is removed. But its rules for pages look at what those for lines have
left, in this order (the code that made C4, `c4_utils.clean_page` in TensorFlow Datasets, which
datatrove's C4QualityFilter follows too):

1. a line goes that has a word of more than 1,000 characters, no terminal mark at its end or an
   ellipsis, or fewer than 3 words;
2. what is left may not have "lorem ipsum" (`LOREM_IPSUM`);
3. a line with "javascript" goes;
4. what is left may not have "{" (`CURLY_BRACKETS`);
5. a line with a policy phrase goes;
6. what is left (`KEPT_LINES`) must have so many sentences (`SENTENCES`).

The code takes Wikipedia's marks ("[1]", "[edit]", "[citation needed]") out of lines before 1; these
are not known here. `ALL_…` are of the whole text, which is what RedPajama-v2 counts in. Words and
lines are `gopher.py`'s. Here:

* a *terminal mark* is ".", "!", "?" or an end quotation mark (C4's), '"' or "”", and an *ellipsis*
  "...";
* a *sentence* is a word that ends, before closing quotation marks and brackets, with ".", "!" or
  "?": no sentence splitter, whose model would have to be pinned, and no abbreviations known;
* phrases are found in any ASCII case, inside words too; a line that has one counts once;
* a *punctuated* line (FineWeb's) ends with ".", "!", "?", "'", '"', or one of "…”’»。！？｡؟۔।॥።։".
"""

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, classes
from pipelines.quality.runs import PIECE_BYTES, decode, event_bytes, find_events
from shards.jit import inline, kernel

VERSION = f"c4-fineweb-lines-v2 (Unicode {UNICODE})"

TERMINAL_LINES, FEW_WORD_LINES, SENTENCES, JAVASCRIPT_LINES, POLICY_LINES = range(5)
LOREM_IPSUM, CURLY_BRACKETS, PUNCTUATED_LINES, SHORT_LINES = range(5, 9)
KEPT_LINES, ALL_SENTENCES, ALL_LOREM_IPSUM, ALL_CURLY_BRACKETS = range(9, 13)
COUNTS = 13

FEW_WORDS = 3
"""A line of fewer words is removed by C4."""
LONG_WORD = 1000
"""A line with a word of more characters is removed by C4."""
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
_EVENT = event_bytes("j")  # begins the one phrase without a space
_TEXTS = np.frombuffer("".join(text for text, _ in PHRASES).encode(), np.uint8).copy()
_CUTS = np.cumsum([0, *(len(text) for text, _ in PHRASES)]).astype(np.int64)
_SIGNS = np.array([sign for _, sign in PHRASES], np.int64)
_ANCHORS = np.array([max(text.rfind(" "), 0) for text, _ in PHRASES], np.int64)
"""Where in a phrase its last space is: there it is looked for, or at its first letter."""
_AROUND = np.zeros(32, np.int64)
"""Letter before such a space (its low 5 bits) → bits of the letters behind it."""
for (_text, _), _anchor in zip(PHRASES, _ANCHORS.tolist(), strict=True):
    if _anchor:
        _AROUND[ord(_text[_anchor - 1]) & 31] |= 1 << (ord(_text[_anchor + 1]) & 31)


@inline
def _phrase(
    data: npt.NDArray[np.uint8],
    begin: int,
    anchor: int,
    end: int,
    phrases: tuple[
        npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]
    ],
) -> int:
    """Return the sign of the phrase whose anchor is at `anchor`, 0 if none is.

    Args:
        data: UTF-8; the document is `data[begin:end]`.
        begin, anchor, end: places in it.
        phrases: their texts, cuts, signs and anchors.
    """
    texts, cuts, signs, anchors = phrases
    for k in range(signs.shape[0]):
        at = anchor - anchors[k]
        length = cuts[k + 1] - cuts[k]
        if at < begin or at + length > end:
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


@inline
def _has_dots(data: npt.NDArray[np.uint8], begin: int, end: int) -> bool:
    """Tell whether `data[begin:end]` ends with three dots."""
    return bool(
        end - begin >= 3
        and data[end - 1] == 0x2E
        and data[end - 2] == 0x2E
        and data[end - 3] == 0x2E
    )


@kernel("void(uint8[::1], int64[::1], uint8[::1], int64[:, ::1])")
def _count(  # noqa: PLR0915 - one pass with all its state in registers
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    marks: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> None:
    """Fill `counts[n, COUNTS]` in one pass over UTF-8; arguments as in `count`."""
    phrases = (_TEXTS, _CUTS, _SIGNS, _ANCHORS)
    events = np.empty(PIECE_BYTES + 1, np.int64)
    for i in range(offsets.shape[0] - 1):
        begin, end = offsets[i], offsets[i + 1]
        terminal = few = sentences = javascript = policy = lorem = curly = punctuated = short = 0
        kept = all_sentences = all_lorem = all_curly = 0
        words = chars = last_char = found = 0  # of the line, from its first to its last word
        line_sentences = line_lorem = opened = word_begin = 0
        has_long = False
        in_word = ends_sentence = False
        last = last_end = 0  # marks of the last character that is no white space; its end
        at = piece = begin
        while piece <= end:
            piece_end = min(piece + PIECE_BYTES, end)
            for k in range(find_events(data, piece, piece_end, end, events, _EVENT)):
                event = events[k]
                if event > at:  # ASCII letters stand before it
                    words += not in_word
                    in_word = True
                    ends_sentence = False
                    chars += event - at
                    last_char = chars
                    last = 0
                # The end closes the last word and the last line.
                point, at = decode(data, event, end)
                mark = marks[point] if point < marks.shape[0] else 0
                if mark & 1:
                    line_sentences += ends_sentence
                    in_word = ends_sentence = False
                    has_long |= chars - word_begin > LONG_WORD
                    if point != 0x0A:
                        chars += words > 0
                        word_begin = chars
                        if (
                            point == 0x20
                            and begin < event < end - 1
                            and (_AROUND[data[event - 1] & 31] >> (data[event + 1] & 31)) & 1
                        ):
                            sign = _phrase(data, begin, event, end, phrases)
                            found |= sign
                            line_lorem += sign == 2
                        continue
                    if words:
                        terminal += (last & 8) > 0
                        punctuated += (last & 16) > 0
                        few += words < FEW_WORDS
                        short += last_char < SHORT_CHARS
                        javascript += (found & 1) > 0
                        policy += (found & 4) > 0
                        if last & 8 and words >= FEW_WORDS and not has_long:
                            looked_at = not _has_dots(data, begin, last_end)
                            lorem += line_lorem * looked_at
                            looked_at &= (found & 1) == 0
                            curly += opened * looked_at
                            looked_at &= (found & 4) == 0
                            kept += looked_at
                            sentences += line_sentences * looked_at
                        all_sentences += line_sentences
                        all_lorem += line_lorem
                    words = chars = last_char = found = 0
                    line_sentences = line_lorem = opened = word_begin = 0
                    has_long = False
                    continue
                words += not in_word
                in_word = True
                chars += 1
                last_char = chars
                last, last_end = mark, at
                # A closing mark leaves it as it is.
                ends_sentence = (mark & 2) > 0 or (ends_sentence and (mark & 4) > 0)
                if point | 0x20 == 0x6A:  # j
                    found |= _phrase(data, begin, event, end, phrases)
                opened += point == 0x7B
                all_curly += point in (0x7B, 0x7D)
            piece = piece_end if piece_end < end else end + 1
        row = counts[i]
        row[0], row[1], row[2], row[3], row[4] = terminal, few, sentences, javascript, policy
        row[5], row[6], row[7], row[8] = lorem, curly, punctuated, short
        row[9], row[10], row[11], row[12] = kept, all_sentences, all_lorem, all_curly


def count(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count what the rules are made of.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        int64 (n, COUNTS), columns TERMINAL_LINES … ALL_CURLY_BRACKETS.
    """
    counts = np.empty((len(offsets) - 1, COUNTS), np.int64)
    _count(data, offsets, _MARKS, counts)
    return counts
