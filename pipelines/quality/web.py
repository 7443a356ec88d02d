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
(`docs/design/quality.md`), some of them of a model, a list or documents that the user names.
"""

import math

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, traits
from pipelines.quality.runs import EVENTS, PIECE_BYTES, SEED, decode, find_events, hash_lower, step
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
_CHARACTER = np.uint64(1 << 63)
"""Tells a character's value from that of a run of ASCII letters, all of whose bytes are below 128.
Words of equal hash are taken for the same: of a million different words, two are with a
probability of 3e-8."""
_HALF = np.uint64(32)

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


@inline
def _is_suffix(letter: int) -> bool:
    """Tell whether a letter can stand behind a number: K, M or B, in either case."""
    return letter | 0x20 in (0x6B, 0x6D, 0x62)


@inline
def _begins(data: UInt8, at: int, end: int, phrase: int) -> bool:
    """Tell whether one of `PHRASES`, by its place, begins at `at`, in any ASCII case."""
    begin = _CUTS[phrase]
    length = _CUTS[phrase + 1] - begin
    if at + length > end:
        return False
    for k in range(length):
        byte = data[at + k]
        if (byte | 0x20 if 0x41 <= byte <= 0x5A else byte) != _TEXTS[begin + k]:
            return False
    return True


@inline
def _log(count: int) -> int:
    """Return ln(count) in units of 1 / LOG_UNIT."""
    if count < _LOGS.shape[0]:
        return int(_LOGS[count])
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
        hashed = SEED
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
    "void(uint8[::1], int64[::1], int64[::1], uint8[::1], uint64[::1], int64[::1], int64[:, ::1])"
)
def _count(  # noqa: PLR0912, PLR0915 - one pass with all its state in registers
    data: UInt8,
    offsets: Int64,
    words: Int64,
    traits: UInt8,
    hashes: UInt64,
    repeats: Int64,
    counts: Int64,
) -> None:
    """Fill `counts[n, COUNTS]`; `hashes` and `repeats` have room for the most words twice."""
    events = np.empty(PIECE_BYTES + 1, np.int64)
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
        more_end = 0
        # of the word
        in_word = False
        chars = word_letters = word_uppers = 0
        number_state = 0  # 1: digits, dots and commas so far; 2: then a suffix; 0: no number
        in_term = False
        hashed = term_hash = SEED
        at = piece = offsets[i]
        while piece <= end:
            piece_end = min(piece + PIECE_BYTES, end)
            for k in range(find_events(data, piece, piece_end, end, events, EVENTS)):
                event = events[k]
                run = event - at
                if run > 0:  # ASCII letters stand before it
                    if not in_word:
                        in_word = True
                        chars = word_letters = word_uppers = number_state = 0
                        letter = data[at] | 0x20
                        if letter == 0x73 and line_words == 0:  # s
                            signs = _begins(data, at, end, 0) or _begins(data, at, end, 1)
                        elif letter == 0x72:  # r
                            if _begins(data, at, end, 2):
                                read_more = True
                                more_end = at + _CUTS[3] - _CUTS[2]
                        elif letter == 0x69:  # i
                            items = items or _begins(data, at, end, 3)
                    if read_more and event > more_end:
                        read_more = False  # not at the end
                    if number_state:
                        is_suffix = number_state == 1 and run == 1 and _is_suffix(data[at])
                        number_state = 2 if is_suffix else 0
                    if not in_term:
                        in_term = True
                        hashed = SEED
                    hashed, run_uppers = hash_lower(data, at, event, hashed)
                    term_hash = hashed
                    chars += run
                    word_letters += run
                    word_uppers += run_uppers
                # The end closes the last word and the last line.
                point, at = decode(data, event, end)
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
                            in_term = False
                            n_terms += 1
                            before = _add_term(term_hash, table, repeats)
                            if before:
                                after = before + 1
                                log_counts += after * _log(after) - before * _log(before)
                            else:
                                known += 1
                    if point == 0x0A:
                        if line_words > 0:
                            is_upper = 2 * uppers > letters
                            is_numeric = digits > 0 and letters == 0
                            is_counter = line_words == 2 and number and named
                            is_navigation = line_words <= NAVIGATION_WORDS and (
                                signs or read_more or items
                            )
                            is_one_word = line_words == 1
                            row[UPPERCASE_LINES] += is_upper
                            row[NUMERIC_LINES] += is_numeric
                            row[COUNTER_LINES] += is_counter
                            row[ONE_WORD_LINES] += is_one_word
                            row[NAVIGATION_LINES] += is_navigation
                            if is_upper or is_numeric or is_counter or is_navigation or is_one_word:
                                row[CORRECTED_WORDS] += line_words
                        uppercase += uppers
                        n_digits += digits
                        line_words = letters = uppers = digits = 0
                        signs = read_more = items = number = named = False
                    continue
                if not in_word:
                    in_word = True
                    chars = word_letters = word_uppers = 0
                    number_state = 1 if trait & 8 else 0
                chars += 1
                if (
                    read_more
                    and event >= more_end
                    and point not in (0x2E, 0x2026, 0x3E, 0xBB, 0x2192)
                ):
                    read_more = False  # not at the end: more than . … > » → follows
                if number_state == 1 and not trait & 8 and point not in (0x2C, 0x2E):  # , .
                    number_state = 2 if point == 0x2B else 0  # +
                elif number_state == 2:
                    number_state = 0
                is_named = trait & 10  # a letter or a digit
                if is_named:
                    if not in_term:
                        in_term = True
                        hashed = SEED
                    word_letters += (trait & 2) > 0
                    word_uppers += (trait & 4) > 0
                    digits += (trait & 8) > 0
                if in_term:
                    hashed = step(hashed, np.uint64(point) | _CHARACTER)
                    if is_named:
                        term_hash = hashed
            piece = piece_end if piece_end < end else end + 1
        row[ALL_CAPS_WORDS], row[UPPERCASE], row[DIGITS] = all_caps, uppercase, n_digits
        row[TERMS], row[UNIQUE_TERMS] = n_terms, known
        row[LOG_TERMS] = _log(max(n_terms, 1))
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
    _count(data, offsets, words, _TRAITS, hashes, repeats, counts)
    return counts


def entropy(counts: Int64) -> npt.NDArray[np.float32]:
    """Return the entropy of the words of each document in nats, float32 (n), from `count`'s rows.

    Σ -(c/n)·ln(c/n) = ln(n) - Σ c·ln(c) / n.
    """
    terms = np.maximum(counts[:, TERMS], 1)
    exact = counts[:, LOG_TERMS] * terms - counts[:, LOG_COUNTS]
    return (exact / terms / LOG_UNIT).astype(np.float32)
