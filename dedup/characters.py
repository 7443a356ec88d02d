"""The character table behind `word-v1`: what is part of a word, what it folds to.

Words are runs of letters, marks and numbers (categories L*, M*, N*) of any script. Where a script
puts no spaces between words, something of about a word's length has to stand for one: in Han and
kana each code point; in Thai, Lao, Tibetan, Myanmar, Khmer and the Tai scripts a run that ends
after combining marks (vowels, tones), which is a syllable or two. One word a code point there
made alias pages of one template, which differ in all that matters, look 0.75 similar. Case is
folded one code point to one (`str.casefold`, else `str.lower`, else unchanged): ß stays ß.
"""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

TABLE_SIZE = 0x20000
"""Code points below this are in the table: planes 0 and 1. Planes 2 and 3 are ideographs, each a
word; beyond them nothing is part of a word."""

SINGLE = 1 << 31
"""Flag of an entry: this code point is a word by itself."""

CLOSING = 1 << 30
"""Flag of an entry: the word ends here, unless another such mark follows."""

FOLDED = (1 << 21) - 1
"""Mask of an entry: the folded code point."""

_IDEOGRAPHIC = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, zero
    (0x3021, 0x302D),  # Hangzhou numerals, Han tone marks
    (0x3031, 0x30FF),  # Hiragana, Katakana
    (0x3192, 0x3195),  # kanbun numerals
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1B16F),  # kana extensions
    (0x1D372, 0x1D376),  # Han tally marks
)

_SYLLABIC = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
)


@cache
def character_table() -> npt.NDArray[np.uint32]:
    """Return the table: uint32[TABLE_SIZE], indexed by code point; made once a process (≈ 50 ms).

    An entry is 0 for a separator, else the folded code point (`FOLDED`), with a flag (`SINGLE`,
    `CLOSING`) where the code point is a word by itself or the end of one.
    """
    table = np.zeros(TABLE_SIZE, dtype=np.uint32)
    for code in range(TABLE_SIZE):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            table[code] = _fold(character)
    for first, last in _IDEOGRAPHIC:
        span = table[first : last + 1]
        span[span != 0] |= np.uint32(SINGLE)
    for first, last in _SYLLABIC:
        for code in range(first, last + 1):
            if unicodedata.category(chr(code))[0] == "M":
                table[code] |= np.uint32(CLOSING)
    table.setflags(write=False)
    return table


def _fold(character: str) -> int:
    """Return the code point that `character` folds to."""
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return ord(folded)
    return ord(character)
