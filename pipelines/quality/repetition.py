"""The Gopher repetition rules as signals (Rae et al. 2021, arXiv:2112.11446, table A1).

The paper names the measures but not their details. Words and lines are `gopher.py`'s. Here:

* a *paragraph* is a longest run of lines without a blank line between them;
* a line or paragraph is a *duplicate* if an earlier one of the document has the same characters,
  white space around it aside; so the first of several equal ones is none;
* characters of lines and paragraphs are counted without the white space around them, and divided
  by those of all lines or paragraphs; characters of n-grams are those of their words, and divided
  by those of all words;
* the *top n-gram* is the word n-gram that occurs most often, occurrences counted from the left
  without overlap, and the one of most characters among those; one that occurs once counts 0;
* a word is in a *duplicate n-gram* if an n-gram around it began earlier in the document too. Each
  word's characters count once, however many duplicate n-grams it stands in.

Nothing is approximated: words, lines and paragraphs are compared byte for byte, and n-grams as
pairs of (n - 1)-grams that overlap in all but one word. Only what occurs twice as an (n - 1)-gram
can do so as an n-gram, so that each level looks at what the level before left, in ordinary text
little.

datatrove differs: it divides by all characters of the document, counts an n-gram's spaces where it
is the top one, takes a top n-gram that occurs once as well, and jumps over a duplicate n-gram
whole, so that it sees no duplicate that begins inside.
"""

import numpy as np
import numpy.typing as npt

from pipelines.quality.characters import UNICODE, classes
from pipelines.quality.gopher import LINES, WORDS
from pipelines.quality.runs import (
    EVENTS,
    PIECE_BYTES,
    SEED,
    decode,
    find_events,
    hash_letters,
    step,
)
from shards.jit import inline, kernel

VERSION = f"gopher-repetition-v1 (Unicode {UNICODE})"

LINE_CHARS, DUPLICATE_LINES, DUPLICATE_LINE_CHARS = range(3)
PARAGRAPHS, PARAGRAPH_CHARS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARS = range(3, 7)
NGRAMS = 7
"""Column `NGRAMS + n - 2` is that of n = 2 … 10: characters in the top or in duplicate n-grams."""
COUNTS = NGRAMS + 9

_CLASSES = classes()
_HALF = np.uint64(32)


@inline
def _table_mask(count: int) -> int:
    """Return size - 1 of the hash table for `count` keys: a power of two, at most half full."""
    size = 4
    while size < 2 * count:
        size *= 2
    return size - 1


@inline
def _same(data: npt.NDArray[np.uint8], one: int, other: int, length: int) -> bool:
    """Tell whether two stretches of bytes are equal."""
    for k in range(length):  # noqa: SIM110 - a generator does not compile
        if data[one + k] != data[other + k]:
            return False
    return True


@inline
def _firsts(
    data: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    count: int,
    table: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Set `first[i]` to the smallest j whose bytes are those of i, for i < `count`."""
    mask = _table_mask(count)
    table[: mask + 1] = -1
    for i in range(count):
        slot = np.int64(hashes[i] >> _HALF) & mask
        length = ends[i] - begins[i]
        while True:
            j = table[slot]
            if j < 0:
                table[slot] = i
                first[i] = i
                break
            if (
                hashes[j] == hashes[i]
                and ends[j] - begins[j] == length
                and _same(data, begins[j], begins[i], length)
            ):
                first[i] = j
                break
            slot = (slot + 1) & mask


@inline
def _duplicates(
    first: npt.NDArray[np.int64], chars: npt.NDArray[np.int64], count: int
) -> tuple[int, int, int]:
    """Return (all characters, duplicates, their characters)."""
    total = duplicates = duplicate_chars = 0
    for i in range(count):
        total += chars[i]
        if first[i] != i:
            duplicates += 1
            duplicate_chars += chars[i]
    return total, duplicates, duplicate_chars


@inline
def _split(  # noqa: PLR0915 - one pass with all its state in registers
    data: npt.NDArray[np.uint8],
    begin: int,
    end: int,
    classes: npt.NDArray[np.uint8],
    words: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]],
    sums: npt.NDArray[np.int64],
    lines: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]],
    line_chars: npt.NDArray[np.int64],
    paragraphs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]],
    paragraph_chars: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """Find words, lines and paragraphs, each as (begins, ends, hashes); return how many of each.

    `sums[i]` is the number of characters in words before word i.
    """
    word_begins, word_ends, word_hashes = words
    line_begins, line_ends, line_hashes = lines
    paragraph_begins, paragraph_ends, paragraph_hashes = paragraphs
    n_words = n_lines = n_paragraphs = 0
    chars = word_chars = 0
    line_begun = paragraph_begun = in_word = False
    first_char = last_char = paragraph_char = 0  # characters before them
    hashed = line_hash = paragraph_hash = SEED
    last_end = begin
    sums[0] = 0
    at = piece = begin
    while piece <= end:
        piece_end = min(piece + PIECE_BYTES, end)
        for k in range(find_events(data, piece, piece_end, end, events, EVENTS)):
            start = events[k]
            run = at
            # The end closes the last word, line and paragraph, like an empty line.
            point, at = decode(data, start, end)
            kind = classes[point] if point < classes.shape[0] else 0
            if run < start or kind != 1:
                if not in_word:
                    in_word = True
                    hashed = SEED
                    word_begins[n_words] = run
                    if not line_begun:
                        line_begun = True
                        line_hash = SEED
                        first_char = chars
                        line_begins[n_lines] = run
                        if not paragraph_begun:
                            paragraph_begun = True
                            paragraph_hash = SEED
                            paragraph_char = chars
                            paragraph_begins[n_paragraphs] = run
                hashed = hash_letters(data, run, start, hashed)
                word_chars += start - run
                chars += start - run
            if kind != 1:
                hashed = step(hashed, np.uint64(point))
                word_chars += 1
                chars += 1
                continue
            if in_word:
                in_word = False
                last_end = start
                last_char = chars
                word_ends[n_words] = start
                word_hashes[n_words] = hashed
                line_hash = step(line_hash, hashed)
                n_words += 1
                sums[n_words] = word_chars
            chars += 1
            if point != 0x0A:
                continue
            if line_begun:
                line_begun = False
                line_ends[n_lines] = last_end
                line_hashes[n_lines] = line_hash
                line_chars[n_lines] = last_char - first_char
                paragraph_hash = step(paragraph_hash, line_hash)
                n_lines += 1
                if start < end:
                    continue
            if paragraph_begun:
                paragraph_begun = False
                paragraph_ends[n_paragraphs] = last_end
                paragraph_hashes[n_paragraphs] = paragraph_hash
                paragraph_chars[n_paragraphs] = last_char - paragraph_char
                n_paragraphs += 1
        piece = piece_end if piece_end < end else end + 1
    return n_words, n_lines, n_paragraphs


@inline
def _ngrams(  # noqa: PLR0912, PLR0915 - levels share their scratch
    n_words: int,
    sums: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    scratch: tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ],
    table: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
) -> None:
    """Fill `row[NGRAMS:]`; `first` (n_words + 1) is that of the words, and is used up.

    After each level, `first[i]` is the smallest j where the n-gram of i stands, or -1 if that one
    occurs once, and the first `count` of `alive` are the i where it is not.
    """
    alive, longer, seen, apart, after = scratch
    first[n_words] = -1
    seen[:n_words] = 0
    for i in range(n_words):
        alive[i] = i
        longer[i] = first[i]
        seen[first[i]] += 1
    count = n_words
    for n in range(2, 12):
        kept = 0
        for k in range(count):
            i = alive[k]
            if longer[i] >= 0 and seen[longer[i]] > 1:
                first[i] = longer[i]
                alive[kept] = i
                kept += 1
            else:
                first[i] = -1
        count = kept
        if count == 0 or n == 11:
            break
        mask = _table_mask(count)
        table[: mask + 1] = -1
        best = best_chars = duplicate_chars = covered = 0
        for k in range(count):
            i = alive[k]
            longer[i] = -1
            if first[i + 1] < 0:
                continue
            key = step(step(SEED, np.uint64(first[i])), np.uint64(first[i + 1]))
            slot = np.int64(key >> _HALF) & mask
            j = table[slot]
            while j >= 0 and (first[j] != first[i] or first[j + 1] != first[i + 1]):
                slot = (slot + 1) & mask
                j = table[slot]
            if j < 0:
                j = i
                table[slot] = i
                seen[i] = apart[i] = after[i] = 0
            longer[i] = j
            seen[j] += 1
            if n >= 5:
                if j != i:
                    duplicate_chars += sums[i + n] - sums[max(i, covered)]
                    covered = i + n
            elif i >= after[j]:
                apart[j] += 1
                after[j] = i + n
                chars = sums[i + n] - sums[i]
                if apart[j] > best or (apart[j] == best and chars > best_chars):
                    best, best_chars = apart[j], chars
        if n >= 5:
            row[NGRAMS + n - 2] = duplicate_chars
        elif best > 1:
            row[NGRAMS + n - 2] = best * best_chars


@kernel("void(uint8[::1], int64[::1], uint8[::1], int64, int64, int64[:, ::1])")
def _count(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    most_words: int,
    most_lines: int,
    counts: npt.NDArray[np.int64],
) -> None:
    """Fill `counts[n, COUNTS]`; no document has more words or lines than the arguments say."""
    words = (
        np.empty(most_words, np.int64),
        np.empty(most_words, np.int64),
        np.empty(most_words, np.uint64),
    )
    lines = (
        np.empty(most_lines, np.int64),
        np.empty(most_lines, np.int64),
        np.empty(most_lines, np.uint64),
    )
    paragraphs = (
        np.empty(most_lines, np.int64),
        np.empty(most_lines, np.int64),
        np.empty(most_lines, np.uint64),
    )
    line_chars = np.empty(most_lines, np.int64)
    paragraph_chars = np.empty(most_lines, np.int64)
    sums = np.empty(most_words + 1, np.int64)
    first = np.empty(most_words + 1, np.int64)
    scratch = (
        np.empty(most_words, np.int64),
        np.empty(most_words, np.int64),
        np.empty(most_words, np.int64),
        np.empty(most_words, np.int64),
        np.empty(most_words, np.int64),
    )
    table = np.empty(_table_mask(most_words) + 1, np.int64)
    events = np.empty(PIECE_BYTES + 1, np.int64)
    for i in range(offsets.shape[0] - 1):
        row = counts[i]
        row[:] = 0
        n_words, n_lines, n_paragraphs = _split(
            data, offsets[i], offsets[i + 1], classes,
            words, sums, lines, line_chars, paragraphs, paragraph_chars, events,
        )  # fmt: skip
        _firsts(data, lines[0], lines[1], lines[2], n_lines, table, first)
        row[0], row[1], row[2] = _duplicates(first, line_chars, n_lines)
        _firsts(data, paragraphs[0], paragraphs[1], paragraphs[2], n_paragraphs, table, first)
        row[3] = n_paragraphs
        row[4], row[5], row[6] = _duplicates(first, paragraph_chars, n_paragraphs)
        _firsts(data, words[0], words[1], words[2], n_words, table, first)
        _ngrams(n_words, sums, first, scratch, table, row)


def count(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    quality: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Count what the rules are made of.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        quality: what `gopher.count` returns for the same documents.

    Returns:
        int64 (n, COUNTS), columns LINE_CHARS … NGRAMS + 8.
    """
    counts = np.empty((len(offsets) - 1, COUNTS), np.int64)
    most_words = int(quality[:, WORDS].max(initial=0))
    most_lines = int(quality[:, LINES].max(initial=0))
    _count(data, offsets, _CLASSES, most_words, most_lines, counts)
    return counts
