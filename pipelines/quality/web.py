"""RefinedWeb's line corrections and RedPajama-v2's word and character measures as signals.

RefinedWeb is Penedo et al. 2023 (arXiv:2306.01116, appendix G.2, "line-wise corrections"), which
flags lines, edits them out and drops a page if they hold more than 5 % of its words. Assay edits
nothing: the kinds of lines are shares of lines, and what the 5 % are of is a share of words. The
paper gives examples and no patterns; a *line* and a *word* are `gopher.py`'s, and here

* an *uppercase* line has more uppercase letters (category Lu) than other letters;
* a *numeric* line has a decimal digit (category Nd) and no letter;
* a *counter* is two words, a number ("3", "1,204", "2.5K", "10+") and one of letters ("likes");
* a *one-word* line has one word;
* a *navigation* line has at most 10 words and begins with "sign in" or "sign-in", ends with "read
  more" (before dots and arrows), or has a word that begins "items in cart"; in any ASCII case.

RedPajama-v2 is Weber et al. 2024 (arXiv:2411.12372, appendix B, "natural language" and
"repetitiveness" signals). Its names and what they are here:

* `rps_doc_frac_unique_words`: different words / words;
* `rps_doc_unigram_entropy`: Σ -(c/n)·ln(c/n) over different words, in nats;
* `rps_doc_frac_all_caps_words`: words whose letters are all uppercase, one or more / words;
* `rps_lines_uppercase_letter_fraction`, `rps_lines_numerical_chars_fraction`: uppercase letters
  (decimal digits) / characters, of the document and not of each line.

For the first two a word is what stands between its first and its last letter or digit, in ASCII
lower case, and words without either do not count: RedPajama's normalisation (lower case, no
punctuation), without a table of Unicode's cases. Its other signals are columns under other names
(`docs/design/quality.md`), or need a model, word lists or lists of sites, which Assay has not.
"""

import math

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, traits
from shards.jit import inline, kernel

VERSION = f"refinedweb-redpajama-v1 (Unicode {UNICODE})"

UPPERCASE_LINES, NUMERIC_LINES, COUNTER_LINES, ONE_WORD_LINES, NAVIGATION_LINES = range(5)
CORRECTED_WORDS, ALL_CAPS_WORDS, UPPERCASE, DIGITS = range(5, 9)
TERMS, UNIQUE_TERMS, LOG_TERMS, LOG_COUNTS = range(9, 13)
COUNTS = 13

NAVIGATION_WORDS = 10
LOG_UNIT = 1 << 24
"""Natural logarithms are rounded to 1/2^24, so that sums are of integers, in any order."""

PHRASES = ("sign in", "sign-in", "read more", "items in cart")
_TEXTS = np.frombuffer("".join(PHRASES).encode(), np.uint8).copy()
_CUTS = np.cumsum([0, *map(len, PHRASES)]).astype(np.int64)
_TRAITS = traits()
_LOGS = np.array([0, *(round(math.log(c) * LOG_UNIT) for c in range(1, 4096))], np.int64)
_OFFSET_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
"""FNV-1a's of 64 bits. Words of equal hash are taken for the same: of a million different words,
two are with a probability of 3e-8."""
_HALF = np.uint64(32)

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


@inline
def _lower(byte: int) -> int:
    """Return an ASCII letter's lower case, any other byte as it is."""
    return byte | 0x20 if 0x41 <= byte <= 0x5A else byte


@inline
def _begins(data: UInt8, at: int, end: int, texts: UInt8, begin: int, length: int) -> bool:
    """Tell whether a phrase begins at `at`."""
    if at + length > end:
        return False
    for k in range(length):  # noqa: SIM110 - numba has no generators
        if _lower(data[at + k]) != texts[begin + k]:
            return False
    return True


@inline
def _log(count: int, logs: Int64) -> int:
    """Return ln(count) in units of 1 / LOG_UNIT."""
    if count < logs.shape[0]:
        return int(logs[count])
    return int(np.rint(math.log(count) * LOG_UNIT))


@inline
def _add_term(hashed: np.uint64, hashes: UInt64, repeats: Int64) -> int:
    """Count one more of a word, and return how often it occurred before.

    Args:
        hashed: its hash.
        hashes: uint64 (a power of two), the words that are known, each at its place, 0 for none.
        repeats: int64 (as many), how often the word of the same place has occurred.
    """
    if hashed == 0:
        hashed = _PRIME
    slot = np.int64(hashed ^ (hashed >> _HALF)) & (hashes.shape[0] - 1)
    while hashes[slot] != hashed:
        if hashes[slot] == 0:
            hashes[slot] = hashed
            repeats[slot] = 0
            break
        slot = (slot + 1) & (hashes.shape[0] - 1)
    repeats[slot] += 1
    return int(repeats[slot] - 1)


@kernel(
    "void(uint8[::1], int64[::1], int64[::1], uint8[::1], uint8[::1], int64[::1], int64[::1],"
    " uint64[::1], int64[::1], int64[:, ::1])"
)
def _count(  # noqa: PLR0912, PLR0915 - one pass with all its state in registers
    data: UInt8,
    offsets: Int64,
    words: Int64,
    traits: UInt8,
    texts: UInt8,
    cuts: Int64,
    logs: Int64,
    hashes: UInt64,
    repeats: Int64,
    counts: Int64,
) -> None:
    """Fill `counts[n, COUNTS]`; `hashes` and `repeats` have room for the most words twice."""
    for i in range(offsets.shape[0] - 1):
        end = offsets[i + 1]
        size = 2
        while size < 2 * words[i]:
            size *= 2
        table = hashes[:size]
        table[:] = 0
        row = counts[i]
        row[:] = 0
        known = n_terms = log_counts = all_caps = uppercase = n_digits = 0
        # of the line
        line_words = letters = uppers = digits = 0
        signs = read_more = items = number = named = False
        # of the word
        in_word = False
        chars = word_letters = word_uppers = 0
        number_state = 0  # 1: digits, dots and commas so far; 2: then a suffix; 0: no number
        in_term = False
        hashed = term_hash = _OFFSET_BASIS
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
            trait = traits[point] if point < traits.shape[0] else 0
            if trait & 1:  # IS_SPACE
                if in_word:
                    in_word = False
                    line_words += 1
                    letters += word_letters
                    uppers += word_uppers
                    all_caps += word_letters > 0 and word_uppers == word_letters
                    if line_words == 1:
                        number = number_state > 0
                    elif line_words == 2:
                        named = word_letters == chars
                    if in_term:
                        n_terms += 1
                        before = _add_term(term_hash, table, repeats)
                        if before:
                            after = before + 1
                            log_counts += after * _log(after, logs) - before * _log(before, logs)
                        else:
                            known += 1
                        in_term = False
                if point == 0x0A:
                    if line_words > 0:
                        is_upper = 2 * uppers > letters
                        is_numeric = digits > 0 and letters == 0
                        is_counter = line_words == 2 and number and named
                        is_navigation = line_words <= NAVIGATION_WORDS and (
                            signs or read_more or items
                        )
                        row[UPPERCASE_LINES] += is_upper
                        row[NUMERIC_LINES] += is_numeric
                        row[COUNTER_LINES] += is_counter
                        row[ONE_WORD_LINES] += line_words == 1
                        row[NAVIGATION_LINES] += is_navigation
                        if is_upper or is_numeric or is_counter or is_navigation or line_words == 1:
                            row[CORRECTED_WORDS] += line_words
                    uppercase += uppers
                    n_digits += digits
                    line_words = letters = uppers = digits = 0
                    signs = read_more = items = number = named = False
                continue
            if in_term and trait & 2 and point < 0x80 and not (number_state or read_more):
                chars += 1  # most characters: an ASCII letter in a word
                word_letters += 1
                word_uppers += (trait & 4) > 0
                hashed = (hashed ^ np.uint64(point | 0x20)) * _PRIME
                term_hash = hashed
                continue
            if not in_word:
                in_word = True
                chars = word_letters = word_uppers = 0
                number_state = 1 if trait & 8 else 0
                letter = point | 0x20
                if letter == 0x73 and line_words == 0:  # s
                    signs = _begins(data, start, end, texts, cuts[0], cuts[1] - cuts[0]) or _begins(
                        data, start, end, texts, cuts[1], cuts[2] - cuts[1]
                    )
                elif letter == 0x72:  # r
                    if _begins(data, start, end, texts, cuts[2], cuts[3] - cuts[2]):
                        read_more = True
                        more_end = start + cuts[3] - cuts[2]
                elif letter == 0x69 and not items:  # i
                    items = _begins(data, start, end, texts, cuts[3], cuts[4] - cuts[3])
            chars += 1
            if read_more and start >= more_end and point not in (0x2E, 0x2026, 0x3E, 0xBB, 0x2192):
                read_more = False  # not at the end: more than . … > » → follows
            if number_state == 1 and not trait & 8 and point not in (0x2C, 0x2E):  # , .
                is_suffix = point in (0x4B, 0x6B, 0x4D, 0x6D, 0x42, 0x62, 0x2B)  # K M B +
                number_state = 2 if is_suffix else 0
            elif number_state == 2:
                number_state = 0
            if trait & 10:  # a letter or a digit
                if not in_term:
                    in_term = True
                    hashed = _OFFSET_BASIS
                if trait & 2:
                    word_letters += 1
                    word_uppers += (trait & 4) > 0
                else:
                    digits += 1
            if in_term:
                for k in range(start, at):
                    hashed = (hashed ^ np.uint64(_lower(data[k]))) * _PRIME
                if trait & 10:
                    term_hash = hashed
        row[ALL_CAPS_WORDS], row[UPPERCASE], row[DIGITS] = all_caps, uppercase, n_digits
        row[TERMS], row[UNIQUE_TERMS] = n_terms, known
        row[LOG_TERMS] = _log(max(n_terms, 1), logs)
        row[LOG_COUNTS] = log_counts


def count(data: UInt8, offsets: Int64, words: Int64) -> Int64:
    """Count what the signals are made of.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        words: int64 (n), how many words each document has (`gopher.WORDS`).

    Returns:
        int64 (n, COUNTS), columns UPPERCASE_LINES … LOG_COUNTS: Σ c·ln(c) over different words.
    """
    counts = np.empty((len(offsets) - 1, COUNTS), np.int64)
    room = max(2, 1 << (2 * int(words.max(initial=0)) - 1).bit_length())
    hashes, repeats = np.empty(room, np.uint64), np.empty(room, np.int64)
    _count(data, offsets, words, _TRAITS, _TEXTS, _CUTS, _LOGS, hashes, repeats, counts)
    return counts


def entropy(counts: Int64) -> npt.NDArray[np.float32]:
    """Return the entropy of the words of each document in nats, float32 (n), from `count`'s rows.

    Σ -(c/n)·ln(c/n) = ln(n) - Σ c·ln(c) / n.
    """
    terms = np.maximum(counts[:, TERMS], 1)
    exact = counts[:, LOG_TERMS] * terms - counts[:, LOG_COUNTS]
    return (exact / terms / LOG_UNIT).astype(np.float32)
