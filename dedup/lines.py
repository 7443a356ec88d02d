"""`line-v1`, `paragraph-v1`: text that repeats inside and across documents, line by line.

A document is cut into *passages* that cover it without a gap: lines (up to and with U+000A), or
paragraphs (lines up to and with the blank ones that follow). Two passages are equal where their
texts are equal under `exact-v1` (white space collapsed and stripped), by the 64-bit xxh3 hash of
that: among 10⁹ different passages, the chance that any two share a hash is 3 %. Passages under
`min_bytes` of normalised text (a brace, a heading) are never removed.

Of equal passages the *first* stays: the one of lowest (document key, place in the document).
Keys come from the caller and are different for different documents, so batches decide nothing.
Two passes, in the shape of the curate job:

1. scan: `find_passages` and `tabulate` a batch, `merge_tables` across batches, `repeated` drops
   what occurs once. Leave out documents that other rules drop (`eligible`): else the one copy that
   counts as first may be in a document that is not kept.
2. write: `find_repeats` marks the passages of a batch that the table says are not first, with the
   evidence; `remove_spans` takes them out of the text.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from dedup.exact import normalise_space
from dedup.vector import BLOCK, range_mask, trailing_zeros
from dedup.words import BYTES, OFFSETS, U64, Int64, UInt8, UInt64
from shards.jit import kernel

PassageUnit = Literal["line", "paragraph"]
Bool = npt.NDArray[np.bool_]

MIN_BYTES = 32
"""Default of `min_bytes`: about five words, so that table cells, braces and headings stay."""

_CHUNK_BYTES = 1 << 20


class Passages(NamedTuple):
    """The passages of a batch that are long enough, in reading order."""

    doc: Int64
    """int64[m], the document's number in the batch."""
    start: Int64
    """int64[m], first byte in the document."""
    end: Int64
    """int64[m], byte after the last one, separator included."""
    hash: UInt64
    """uint64[m], xxh3-64 of the normalised text."""
    word: Int64
    """int64[m], number of the first word in the document (`dedup.substrings`); 0 for lines."""


class PassageTable(NamedTuple):
    """What is known of each different passage, sorted by hash."""

    hash: UInt64
    """uint64[u], increasing."""
    occurrences: Int64
    """int64[u], how often it occurs."""
    key: UInt64
    """uint64[u], key of the document where it occurs first."""
    start: Int64
    """int64[u], byte in that document where it does."""
    word: Int64
    """int64[u], the word there, as in `Passages`."""


class Repeats(NamedTuple):
    """Passages to remove, in reading order, with the evidence."""

    doc: Int64
    """int64[r], the document's number in the batch."""
    start: Int64
    """int64[r], first byte in the document."""
    end: Int64
    """int64[r], byte after the last one."""
    occurrences: Int64
    """int64[r], how often the passage occurs in the corpus."""
    first_key: UInt64
    """uint64[r], key of the document that keeps it."""
    first_start: Int64
    """int64[r], byte in that document."""
    word: Int64
    """int64[r], number of the first word, as in `Passages`."""
    first_word: Int64
    """int64[r], the same of the first occurrence."""


def find_passages(
    data: UInt8, offsets: Int64, unit: PassageUnit = "line", min_bytes: int = MIN_BYTES
) -> Passages:
    """Cut documents into passages and hash those of at least `min_bytes` normalised bytes.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        unit: `line` or `paragraph`.
        min_bytes: at least 1, since blank passages are no passages.

    Raises:
        ValueError: `min_bytes` < 1.
    """
    if min_bytes < 1:
        raise ValueError(f"min_bytes = {min_bytes}: must be at least 1, blank lines have 0 bytes")
    parts = [_EMPTY]
    start, n = 0, offsets.size - 1
    while start < n:
        # A megabyte at a time, as in `dedup.exact`: the normalised text stays in the cache.
        stop = int(np.searchsorted(offsets, offsets[start] + _CHUNK_BYTES, side="right")) - 1
        stop = max(stop, start + 1)
        part = _passages(data, offsets[start : stop + 1], unit, min_bytes)
        parts.append(part._replace(doc=part.doc + start))
        start = stop
    return Passages(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def tabulate(passages: Passages, keys: UInt64, eligible: Bool | None = None) -> PassageTable:
    """Count each different passage of a batch and find its first place.

    Args:
        passages: from `find_passages`.
        keys: uint64[n], the documents' keys; different for different documents of the corpus.
        eligible: bool[n], the documents that count; all by default.
    """
    wanted = slice(None) if eligible is None else eligible[passages.doc]
    doc, start, word = passages.doc[wanted], passages.start[wanted], passages.word[wanted]
    ones = np.ones(doc.size, dtype=np.int64)
    return _grouped(PassageTable(passages.hash[wanted], ones, keys[doc], start, word))


def merge_tables(tables: Sequence[PassageTable]) -> PassageTable:
    """Merge tables of disjoint batches; neither their order nor the cuts between them matter."""
    rows = [_NOTHING, *tables]
    return _grouped(
        PassageTable(
            np.concatenate([table.hash for table in rows]),
            np.concatenate([table.occurrences for table in rows]),
            np.concatenate([table.key for table in rows]),
            np.concatenate([table.start for table in rows]),
            np.concatenate([table.word for table in rows]),
        )
    )


def repeated(table: PassageTable, min_count: int = 2) -> PassageTable:
    """Return the passages that occur at least `min_count` times: all that the second pass needs."""
    often = table.occurrences >= min_count
    return PassageTable(
        table.hash[often],
        table.occurrences[often],
        table.key[often],
        table.start[often],
        table.word[often],
    )


def find_repeats(passages: Passages, keys: UInt64, table: PassageTable) -> Repeats:
    """Return the passages of a batch that are in the table and not first there.

    Args:
        passages, keys: as in `tabulate`.
        table: of the whole corpus, `repeated` or not: what occurs once is first.
    """
    places = look_up(table.hash, passages.hash)
    rows = np.flatnonzero(places >= 0)
    place = places[rows]
    doc, start = passages.doc[rows], passages.start[rows]
    later = (table.key[place] != keys[doc]) | (table.start[place] != start)
    rows, place = rows[later], place[later]
    return Repeats(
        passages.doc[rows],
        passages.start[rows],
        passages.end[rows],
        table.occurrences[place],
        table.key[place],
        table.start[place],
        passages.word[rows],
        table.word[place],
    )


def remove_spans(
    data: UInt8, offsets: Int64, doc: Int64, start: Int64, end: Int64
) -> tuple[UInt8, Int64]:
    """Return the documents without some spans, in the same flat form.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        doc, start, end: int64[r], spans as bytes of their documents, in reading order; they may
            overlap.
    """
    out = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint8)
    bounds = np.zeros(offsets.size, dtype=np.int64)
    _remove(data, offsets, doc, start, end, out, bounds)
    return out[: bounds[-1]], bounds


def look_up(known: UInt64, wanted: UInt64) -> Int64:
    """Return where in `known` (hashes, increasing) each of `wanted` is: int64[n], -1 if absent."""
    bits = max(known.size, 2).bit_length()
    upper = (known >> np.uint64(64 - bits)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(upper, minlength=1 << bits))])
    out = np.empty(wanted.size, dtype=np.int64)
    _look_up(known, starts.astype(np.int64), wanted, np.uint64(64 - bits), out)
    return out


def _passages(data: UInt8, offsets: Int64, unit: PassageUnit, min_bytes: int) -> Passages:
    """`find_passages` for one chunk."""
    cuts = np.empty(int(offsets[-1] - offsets[0]) + offsets.size, dtype=np.int64)
    doc = np.empty(cuts.size, dtype=np.int64)
    n_lines = _cut_lines(data, offsets, cuts, doc)
    cuts, doc = cuts[: n_lines + 1], doc[:n_lines]
    text, bounds = normalise_space(data, cuts)
    if unit == "paragraph":
        starts = _paragraph_starts(doc, np.diff(bounds) == 0)
        cuts, doc = np.append(cuts[:-1][starts], cuts[-1]), doc[starts]
        text, bounds = normalise_space(data, cuts)
    long = np.flatnonzero(np.diff(bounds) >= min_bytes)
    view = text.data
    spans = zip(bounds[long].tolist(), bounds[long + 1].tolist(), strict=True)
    digest = xxhash.xxh3_64_intdigest
    hashes = np.array([digest(view[a:b]) for a, b in spans], dtype=np.uint64)
    doc = doc[long]
    start, end = cuts[long] - offsets[doc], cuts[long + 1] - offsets[doc]
    return Passages(doc, start, end, hashes, np.zeros(doc.size, dtype=np.int64))


def _paragraph_starts(doc: Int64, blank: Bool) -> Bool:
    """Return which lines open a paragraph: text after a blank line, and each document's first."""
    starts = np.ones(doc.size, dtype=np.bool_)
    starts[1:] = (doc[1:] != doc[:-1]) | (blank[:-1] & ~blank[1:])
    return starts


def _grouped(rows: PassageTable) -> PassageTable:
    """Make one row of the rows of each hash: counts added, the first place."""
    order = np.lexsort((rows.start, rows.key, rows.hash))
    hashes = rows.hash[order]
    fresh = np.ones(hashes.size, dtype=np.bool_)
    fresh[1:] = hashes[1:] != hashes[:-1]
    first = np.flatnonzero(fresh)
    count = np.add.reduceat(rows.occurrences[order], first) if first.size else rows.occurrences[:0]
    first = order[first]
    return PassageTable(
        rows.hash[first], count, rows.key[first], rows.start[first], rows.word[first]
    )


@kernel(f"int64({BYTES}, {OFFSETS}, int64[::1], int64[::1])")
def _cut_lines(data: UInt8, offsets: Int64, cuts: Int64, doc: Int64) -> int:
    """Write the first byte of each line to `cuts` and its document to `doc`; return how many.

    `cuts` ends with the end of the last document: the lines cover the buffer without a gap.
    """
    count = 0
    for i in range(offsets.size - 1):
        at, end = offsets[i], offsets[i + 1]
        line = at
        while at < end:
            if at + BLOCK <= end:
                breaks = range_mask(data, at, 0x0A, 0x0A)
                while breaks != 0:
                    cuts[count], doc[count] = line, i
                    count += 1
                    line = at + trailing_zeros(breaks) + 1
                    breaks &= breaks - np.uint64(1)
                at += BLOCK
            else:
                if data[at] == 0x0A:
                    cuts[count], doc[count] = line, i
                    count += 1
                    line = at + 1
                at += 1
        if line < end:
            cuts[count], doc[count] = line, i
            count += 1
    cuts[count] = offsets[offsets.size - 1]
    return count


@kernel(f"void({U64}, {OFFSETS}, {U64}, uint64, int64[::1])")
def _look_up(known: UInt64, starts: Int64, wanted: UInt64, shift: np.uint64, out: Int64) -> None:
    """Search the few known hashes that share their upper bits with a wanted one."""
    for i in range(wanted.size):
        bucket = np.int64(wanted[i] >> shift)
        out[i] = -1
        for place in range(starts[bucket], starts[bucket + 1]):
            if known[place] == wanted[i]:
                out[i] = place


@kernel(f"void({BYTES}, {OFFSETS}, {OFFSETS}, {OFFSETS}, {OFFSETS}, uint8[::1], int64[::1])")
def _remove(
    data: UInt8,
    offsets: Int64,
    doc: Int64,
    start: Int64,
    end: Int64,
    out: UInt8,
    bounds: Int64,
) -> None:
    """Copy what lies between the spans."""
    filled = 0
    span = 0
    for i in range(offsets.size - 1):
        at = offsets[i]
        while span < doc.size and doc[span] == i:
            stop = offsets[i] + start[span]
            if stop > at:
                out[filled : filled + stop - at] = data[at:stop]
                filled += stop - at
            at = max(at, offsets[i] + end[span])
            span += 1
        rest = offsets[i + 1] - at
        if rest > 0:
            out[filled : filled + rest] = data[at : at + rest]
            filled += rest
        bounds[i + 1] = filled


_I64 = np.empty(0, dtype=np.int64)
_U64 = np.empty(0, dtype=np.uint64)
_EMPTY = Passages(_I64, _I64, _I64, _U64, _I64)
_NOTHING = PassageTable(_U64, _I64, _U64, _I64, _I64)
