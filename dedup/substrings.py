"""`substring-v2`: long word sequences that repeat inside and across documents.

A *window* is `n_words` consecutive words (`word-v1`: case, white space and punctuation do not
count), 50 by default, the length of Lee et al. 2021 ("Deduplicating Training Data Makes Language
Models Better", which finds them with a suffix array over all text). Every window that occurs again
is found, as if all windows were hashed, at a price of a few numbers a hundred words:

1. `find_anchors` samples n-grams of half a window by winnowing (Schleimer, Wilkerson and Aiken
   2003): an n-gram is an anchor if its hash is the least of all in some window. Two equal windows
   have the same anchor in the same place, so a window without a repeated anchor is unique.
   `merge_anchors` adds the counts of batches, in any order.
2. `find_windows` hashes the windows that hold a repeated anchor. They are `Passages`, as lines
   are, so `dedup.lines` does the rest: `tabulate`, `merge_tables`, `repeated` across batches, then
   `find_repeats` with the evidence.
3. `removable_spans` joins the windows that are not first into spans to report or to take out with
   `remove_spans`: a span ends where the source changes, so its words stand in one row at the place
   that it names. Where text repeats itself without a gap, its first window stays whole.

Places are those of the documents before anything is cut. The one that a span names is earlier in
the order of (document key, byte), but other windows that lie over it may be cut there in turn, for
the sake of a place that is earlier still. Whoever follows the places word by word ends at a word
that stays; a window over the seam of two sources may stay in two parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dedup.lines import Passages, Repeats
from dedup.shingles import coefficients, combine, finish
from dedup.words import (
    BYTES,
    OFFSETS,
    U32,
    U64,
    Int64,
    UInt8,
    UInt32,
    UInt64,
    max_elements,
    read_word_spans,
    read_words,
    tables,
)
from shards.jit import inline, kernel

N_WORDS = 50


class AnchorTable(NamedTuple):
    """How often each different anchor occurs, sorted by hash."""

    hash: UInt64
    """uint64[u], increasing."""
    occurrences: Int64
    """int64[u]"""


class Spans(NamedTuple):
    """Repeated text to report or remove, in reading order; spans of a document do not overlap."""

    doc: Int64
    """int64[s], the document's number in the batch."""
    start: Int64
    """int64[s], first byte in the document."""
    end: Int64
    """int64[s], byte after the last one."""
    occurrences: Int64
    """int64[s], how often the span's first window occurs in the corpus."""
    first_key: UInt64
    """uint64[s], key of the document where that window occurs first."""
    first_start: Int64
    """int64[s], byte in that document, before anything is cut."""
    skipped: Int64
    """int64[s], words from that byte to the first one of the span: 0 but where text overlaps its
    own first occurrence."""


def find_anchors(data: UInt8, offsets: Int64, n_words: int = N_WORDS) -> AnchorTable:
    """Count the anchors of a batch: about 7 of 100 words for windows of 50.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        n_words: words of a window, ≥ 2; shorter documents have no anchors.

    Raises:
        ValueError: `n_words` < 2.
    """
    _check(n_words)
    room = max_elements(int(offsets[-1] - offsets[0]), "word") + offsets.size
    out = np.empty(room, dtype=np.uint64)
    table = tables()
    factors = coefficients(n_words // 2)
    count = _anchors(data, offsets, table.characters, table.ascii, factors, n_words, out)
    hashes, occurrences = np.unique(out[:count], return_counts=True)
    return AnchorTable(hashes, occurrences.astype(np.int64))


def merge_anchors(parts: Sequence[AnchorTable], min_count: int = 1) -> AnchorTable:
    """Add up the tables of disjoint batches, in any order; drop what occurs less than `min_count`.

    Only the merge of all tables may drop anything: `min_count` = 2 there is what `find_windows`
    needs.
    """
    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *(part.hash for part in parts)])
    counts = np.concatenate([np.empty(0, dtype=np.int64), *(part.occurrences for part in parts)])
    unique, place = np.unique(hashes, return_inverse=True)
    total = np.zeros(unique.size, dtype=np.int64)
    np.add.at(total, place, counts)
    return AnchorTable(unique[total >= min_count], total[total >= min_count])


def find_windows(
    data: UInt8, offsets: Int64, anchors: AnchorTable, n_words: int = N_WORDS
) -> Passages:
    """Hash the windows of a batch that hold an anchor of the table.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        anchors: of the whole corpus, those that occur at least twice.
        n_words: as for the anchors.

    Returns:
        Passages in reading order that overlap: a window's bytes reach from its first word to its
        last one.

    Raises:
        ValueError: `n_words` < 2.
    """
    _check(n_words)
    table = tables()
    half, whole = coefficients(n_words // 2), coefficients(n_words)
    n_windows = np.zeros(offsets.size - 1, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    arguments = (data, offsets, table.characters, table.ascii, half, whole, anchors.hash)
    _windows(*arguments, n_windows, none, none, np.empty(0, dtype=np.uint64), none)
    total = int(n_windows.sum())
    start, end = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    hashes, word = np.empty(total, dtype=np.uint64), np.empty(total, dtype=np.int64)
    _windows(*arguments, n_windows, start, end, hashes, word)
    doc = np.repeat(np.arange(offsets.size - 1, dtype=np.int64), n_windows)
    return Passages(doc, start, end, hashes, word)


def removable_spans(
    windows: Passages, repeats: Repeats, keys: UInt64, n_words: int = N_WORDS
) -> Spans:
    """Join repeated windows into the spans to remove, as few as have one source each.

    Args:
        windows: of the batch, from `find_windows`.
        repeats: from `dedup.lines.find_repeats` for them.
        keys: uint64[n], the documents' keys, as in `tabulate`.
        n_words: words of a window, as for `find_windows`.
    """
    # A window that overlaps its own first occurrence is cut where that one ends, so that the
    # first fifty of a thousand equal words stay.
    own = np.flatnonzero(keys[repeats.doc] == repeats.first_key)
    place = _find(windows.doc, windows.start, repeats.doc[own], repeats.first_start[own])
    start, skipped = repeats.start.copy(), np.zeros(repeats.start.size, dtype=np.int64)
    start[own] = np.maximum(start[own], windows.end[place])
    distance = repeats.word[own] - repeats.first_word[own]
    skipped[own] = np.maximum(n_words - distance, 0)
    # A run: windows that follow each other word by word, as their first occurrences do.
    opens = np.ones(start.size, dtype=np.bool_)
    opens[1:] = (np.diff(repeats.doc) != 0) | (repeats.first_key[1:] != repeats.first_key[:-1])
    opens[1:] |= (np.diff(repeats.word) != 1) | (np.diff(repeats.first_word) != 1)
    first = np.flatnonzero(opens)
    last = np.append(first[1:], start.size)[: first.size] - 1
    # Of runs that open with the same word, one that was cut has the white space before it as well.
    opening = repeats.word[first] + skipped[first]
    width = int(opening.max(initial=0)) + 1
    _, same = np.unique(repeats.doc[first] * width + opening, return_inverse=True)
    least = np.full(first.size, np.iinfo(np.int64).max)
    np.minimum.at(least, same, start[first])
    start[first] = least[same]
    run, end = np.empty_like(first), np.empty_like(first)
    count = _cover(repeats.doc[first], start[first], repeats.end[last], run, end)
    rows = first[run[:count][::-1]]
    return Spans(
        repeats.doc[rows],
        start[rows],
        end[:count][::-1].copy(),
        repeats.occurrences[rows],
        repeats.first_key[rows],
        repeats.first_start[rows],
        skipped[rows],
    )


@kernel("int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def _cover(doc: Int64, start: Int64, end: Int64, run: Int64, until: Int64) -> int:
    """Cover the union of runs with the fewest pieces that each begin where a run does.

    Only there is a source's byte known. From the back: a piece that has to end at `edge` is of the
    run that reaches it and begins first, the last of several; the next one ends where that begins.

    Args:
        doc, start, end: int64[r], the runs, by document; `end` increases in each.
        run, until: int64[r], filled with the pieces' runs and ends, the last piece first.

    Returns:
        How many pieces there are.
    """
    count = 0
    edge, best = 0, -1
    for i in range(doc.size - 1, -1, -1):
        fresh = i == doc.size - 1 or doc[i] != doc[i + 1]
        if best >= 0 and (fresh or end[i] < edge):
            run[count], until[count] = best, edge
            count += 1
            edge, best = start[best], -1
        if fresh or end[i] < edge:
            edge, best = end[i], i
        elif start[i] < edge and (best < 0 or start[i] < start[best]):
            best = i
    if best >= 0:
        run[count], until[count] = best, edge
        count += 1
    return count


def _check(n_words: int) -> None:
    if n_words < 2:
        raise ValueError(f"n_words = {n_words}: a window has at least 2 words")


def _find(doc: Int64, start: Int64, wanted_doc: Int64, wanted_start: Int64) -> Int64:
    """Return the first row of each wanted (doc, start), which is among rows sorted by both."""
    if wanted_doc.size == 0:
        return wanted_doc
    width = max(int(start.max(initial=0)), int(wanted_start.max(initial=0))) + 1
    return np.searchsorted(doc * width + start, wanted_doc * width + wanted_start)


@inline
def _winnow(hashes: UInt64, count: int, window: int, places: Int64) -> int:
    """Write the places of the anchors among `hashes[:count]`; return how many.

    The least of every `window` consecutive hashes, the last one where several are equal.
    """
    n_places = 0
    least = -1
    for end in range(window, count + 1):
        start = end - window
        if least < start:
            least = start
            for place in range(start + 1, end):
                if hashes[place] <= hashes[least]:
                    least = place
        elif hashes[end - 1] <= hashes[least]:
            least = end - 1
        if n_places == 0 or places[n_places - 1] != least:
            places[n_places] = least
            n_places += 1
    return n_places


@kernel(f"int64({BYTES}, {OFFSETS}, {U32}, {U64}, {U64}, int64, uint64[::1])")
def _anchors(
    data: UInt8,
    offsets: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    n_words: int,
    out: UInt64,
) -> int:
    """Write the anchors of all documents to `out`; return how many."""
    filled = 0
    places = np.empty(1024, dtype=np.int64)
    grams = np.empty(1024, dtype=np.uint64)
    for doc in range(offsets.size - 1):
        at, end = offsets[doc], offsets[doc + 1]
        if end - at > grams.size:
            grams = np.empty(2 * (end - at), dtype=np.uint64)
            places = np.empty(2 * (end - at), dtype=np.int64)
        _, count = read_words(data, at, end, characters, ascii_, grams, 0)
        if count < n_words:
            continue
        n_grams = combine(grams, count, factors, grams)
        n_places = _winnow(grams, n_grams, n_words - factors.size + 1, places)
        for i in range(n_places):
            out[filled + i] = grams[places[i]]
        filled += n_places
    return filled


@inline
def _is_in(values: UInt64, value: np.uint64) -> bool:
    """Tell whether sorted `values` hold `value`."""
    low, high = 0, values.size
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < values.size and values[low] == value


@kernel(
    f"void({BYTES}, {OFFSETS}, {U32}, {U64}, {U64}, {U64}, {U64}, int64[::1], int64[::1],"
    " int64[::1], uint64[::1], int64[::1])"
)
def _windows(
    data: UInt8,
    offsets: Int64,
    characters: UInt32,
    ascii_: UInt64,
    half: UInt64,
    whole: UInt64,
    anchors: UInt64,
    n_windows: Int64,
    start: Int64,
    end: Int64,
    hashes: UInt64,
    word: Int64,
) -> None:
    """Count the windows of each document that hold an anchor, or write them if there is room.

    An anchor at word p, least of `reach` n-grams, can be that of the windows from p − reach + 1
    to p; those of them that have another one are superfluous, but unique or counted like any.
    """
    n_words = whole.size
    reach = n_words - half.size + 1
    writes = start.size > 0
    filled = 0
    for doc in range(offsets.size - 1):
        at, stop = offsets[doc], offsets[doc + 1]
        if writes and n_windows[doc] == 0:
            continue
        words = np.empty(stop - at, dtype=np.uint64)
        _, count = read_words(data, at, stop, characters, ascii_, words, 0)
        if count < n_words:
            continue
        grams = np.empty(count, dtype=np.uint64)
        places = np.empty(count, dtype=np.int64)
        n_grams = combine(words, count, half, grams)
        n_places = _winnow(grams, n_grams, reach, places)
        if writes:
            firsts = np.empty(count, dtype=np.int64)
            lasts = np.empty(count, dtype=np.int64)
            read_word_spans(data, at, stop, characters, ascii_, firsts, lasts)
        done = 0
        for i in range(n_places):
            if not _is_in(anchors, grams[places[i]]):
                continue
            until = min(places[i] + 1, count - n_words + 1)
            for window in range(max(done, places[i] - reach + 1), until):
                if writes:
                    total = np.uint64(0)
                    for step in range(n_words):
                        total += words[window + step] * whole[step]
                    start[filled] = firsts[window] - at
                    end[filled] = lasts[window + n_words - 1] - at
                    hashes[filled] = finish(total)
                    word[filled] = window
                    filled += 1
                else:
                    n_windows[doc] += 1
            done = max(done, until)
