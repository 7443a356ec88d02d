"""`contamination-v1`: documents that hold text of evaluation items, by shared word n-grams.

An item is *found* in a document where they share n consecutive words (`word-v1`: case, white space
and punctuation do not count), 13 by default as in Brown et al. 2020 (GPT-3, appendix C). Items of
fewer than n words are looked for whole, down to `min_words` (8, the least n-gram there);
shorter ones say too little to be evidence and are never found: `EvaluationIndex.n_ngrams` is 0
for them, so that the caller can name them.

One document may share a few n-grams with an item by chance (a quotation, a licence) or hold it
all. `overlap`, the share of the item's different n-grams that the document has, tells the two
apart: the caller drops or marks above a threshold of its own, or takes out the spans with
`dedup.lines.remove_spans`.
"""

from typing import NamedTuple

import numpy as np

from dedup.shingles import coefficients, combine, finish
from dedup.vector import trailing_zeros
from dedup.verify import Float32, ratio
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

NGRAM = 13
MIN_WORDS = 8

_SPARSE = 4  # log2 of a bitmap's bits for each n-gram: at most 1 absent one in 16 passes
_CHUNK = 2048  # n-grams at a time: their sums stay in the cache


class EvaluationIndex(NamedTuple):
    """The n-grams of evaluation items."""

    hash: UInt64
    """uint64[u], the different n-grams (`shingle-v1` hashes), increasing."""
    item_offsets: Int64
    """int64[u + 1], into `items`."""
    items: Int64
    """int64[m], the items that have each n-gram."""
    n_ngrams: Int64
    """int64[items], different n-grams of each item; 0: too short to be found."""
    lengths: Int64
    """int64[l], the words of an n-gram: `ngram` and those of the shorter items."""
    buckets: Int64
    """int64[2^b + 1]: where in `hash` each value of the upper b bits starts."""
    filters: UInt64
    """uint64[f]: a bitmap for each length; bit i is set if some hash's upper f bits are i."""
    filter_bits: Int64
    """int64[l]: f of each length; few items are short, so their bitmaps stay in the cache."""


class Contamination(NamedTuple):
    """The documents in which items are found, and where."""

    doc: Int64
    """int64[d], increasing."""
    item: Int64
    """int64[d], the item of highest overlap (then: of most n-grams, of lowest number)."""
    shared: Int64
    """int64[d], how many of the item's different n-grams the document has."""
    overlap: Float32
    """float32[d], their share in all n-grams of the item."""
    span_offsets: Int64
    """int64[d + 1], into the spans."""
    start: Int64
    """int64[s], first byte, in the document, of a span of n-grams of any item."""
    end: Int64
    """int64[s], byte after the last one; spans neither overlap nor touch."""


def index_items(
    data: UInt8, offsets: Int64, ngram: int = NGRAM, min_words: int = MIN_WORDS
) -> EvaluationIndex:
    """Index the n-grams of evaluation items.

    Args:
        data, offsets: the items' texts (uint8[::1], int64[n + 1]).
        ngram: words of an n-gram.
        min_words: least words of an item that is looked for whole; `ngram` for none.

    Raises:
        ValueError: not 1 ≤ min_words ≤ ngram.
    """
    if not 1 <= min_words <= ngram:
        raise ValueError(f"min_words = {min_words} must be from 1 to ngram = {ngram}")
    n = offsets.size - 1
    hashes = np.empty(max_elements(int(offsets[-1] - offsets[0]), "word") + n, dtype=np.uint64)
    items = np.empty(hashes.size, dtype=np.int64)
    n_words = np.zeros(n, dtype=np.int64)
    table = tables()
    count = _item_ngrams(
        data,
        offsets,
        table.characters,
        table.ascii,
        coefficients(ngram),
        min_words,
        hashes,
        items,
        n_words,
    )
    hashes, items = hashes[:count], items[:count]
    order = np.lexsort((items, hashes))
    hashes, items = hashes[order], items[order]
    fresh = np.ones(count, dtype=np.bool_)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
    hashes, items = hashes[fresh], items[fresh]
    different, starts = np.unique(hashes, return_index=True)
    words = np.minimum(n_words, ngram)
    lengths = np.unique(words[words >= min_words])
    maps = [_bitmap(hashes[words[items] == length]) for length in lengths]
    return EvaluationIndex(
        different,
        np.append(starts, hashes.size).astype(np.int64),
        items,
        np.bincount(items, minlength=n).astype(np.int64),
        lengths,
        _bucket_starts(different),
        np.concatenate([*maps, np.empty(0, dtype=np.uint64)]),
        np.array([(map_.size * 64 - 1).bit_length() for map_ in maps], dtype=np.int64),
    )


def find_contamination(data: UInt8, offsets: Int64, index: EvaluationIndex) -> Contamination:
    """Find the documents of a batch that share n-grams with evaluation items.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        index: from `index_items`.
    """
    n_hits = np.zeros(offsets.size - 1, dtype=np.int64)
    characters, ascii_ = tables()
    factors = coefficients(int(index.lengths.max(initial=1)))
    _count(
        data,
        offsets,
        characters,
        ascii_,
        factors,
        index.hash,
        index.lengths,
        index.buckets,
        index.filters,
        index.filter_bits,
        n_hits,
    )
    docs = np.flatnonzero(n_hits)
    bounds = np.concatenate([[0], np.cumsum(n_hits[docs])]).astype(np.int64)
    ngrams, start, end = (np.empty(bounds[-1], dtype=np.int64) for _ in range(3))
    _collect(
        data,
        offsets,
        docs,
        bounds,
        characters,
        ascii_,
        factors,
        index.hash,
        index.lengths,
        index.buckets,
        index.filters,
        index.filter_bits,
        ngrams,
        start,
        end,
    )

    owner = np.repeat(np.arange(docs.size), np.diff(bounds))
    order = np.lexsort((end, start, owner))
    owner_of_span, start, end = merged_spans(owner[order], start[order], end[order])
    order = np.lexsort((ngrams, owner))
    owner, ngrams = owner[order], ngrams[order]
    fresh = np.ones(owner.size, dtype=np.bool_)
    fresh[1:] = (owner[1:] != owner[:-1]) | (ngrams[1:] != ngrams[:-1])
    owner, ngrams = owner[fresh], ngrams[fresh]

    item, shared = np.empty(docs.size, dtype=np.int64), np.empty(docs.size, dtype=np.int64)
    overlap = np.empty(docs.size, dtype=np.float32)
    starts = np.searchsorted(owner, np.arange(docs.size + 1))
    _best(starts, ngrams, index.item_offsets, index.items, index.n_ngrams, item, shared, overlap)
    spans = np.searchsorted(owner_of_span, np.arange(docs.size + 1))
    return Contamination(docs, item, shared, overlap, spans, start, end)


def _bucket_starts(hashes: UInt64) -> Int64:
    """Return where each value of the upper bits starts among sorted hashes, about one a value."""
    bits = max(hashes.size, 2).bit_length()
    upper = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(np.bincount(upper, minlength=1 << bits))])


def _bitmap(hashes: UInt64) -> UInt64:
    """Return a bitmap of the upper bits of hashes: uint64[2^k]."""
    bits = max(hashes.size, 4).bit_length() + _SPARSE
    places = np.unique(hashes >> np.uint64(64 - bits))
    words, place = (places >> np.uint64(6)).astype(np.int64), places & np.uint64(63)
    bitmap = np.zeros(1 << (bits - 6), dtype=np.uint64)
    np.bitwise_or.at(bitmap, words, np.uint64(1) << place)
    return bitmap


def merged_spans(owner: Int64, start: Int64, end: Int64) -> tuple[Int64, Int64, Int64]:
    """Join spans of one owner that overlap or touch; they come sorted by (owner, start)."""
    if owner.size == 0:
        return owner, start, end
    # Offsets that keep the owners apart let one running maximum serve all of them.
    shift = owner * (int(end.max()) + 2)
    reach = np.maximum.accumulate(end + shift)
    first = np.ones(owner.size, dtype=np.bool_)
    first[1:] = (start + shift)[1:] > reach[:-1]
    last = np.append(np.flatnonzero(first)[1:] - 1, owner.size - 1)
    return owner[first], start[first], (reach - shift)[last]


@kernel(
    f"int64({BYTES}, {OFFSETS}, {U32}, {U64}, {U64}, int64, uint64[::1], int64[::1], int64[::1])"
)
def _item_ngrams(
    data: UInt8,
    offsets: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    min_words: int,
    hashes: UInt64,
    items: Int64,
    n_words: Int64,
) -> int:
    """Write the n-grams of each item, its only one where it is shorter; return how many."""
    filled = 0
    for item in range(offsets.size - 1):
        here = hashes[filled:]
        _, count = read_words(data, offsets[item], offsets[item + 1], characters, ascii_, here, 0)
        n_words[item] = count
        if count >= min_words:
            n_ngrams = combine(here, count, factors, here)
            items[filled : filled + n_ngrams] = item
            filled += n_ngrams
    return filled


@inline
def _matches(
    words: UInt64,
    n_words: int,
    factors: UInt64,
    hashes: UInt64,
    lengths: Int64,
    buckets: Int64,
    filters: UInt64,
    filter_bits: Int64,
    place_out: Int64,
    length_out: Int64,
    ngram_out: Int64,
) -> int:
    """Look for the n-grams of a document in the index; return how many are there.

    Writes the first word, number of words and place in `hashes` of as many as the outputs hold.
    A longer n-gram's sum goes on from a shorter one's at the same word, so all lengths cost
    little more than the longest alone.
    """
    count = 0
    shift = np.uint64(64 - trailing_zeros(np.uint64(buckets.size - 1)))
    sums = np.empty(_CHUNK, dtype=np.uint64)
    for base in range(0, n_words, _CHUNK):
        sums[:] = 0
        done, bitmap = 0, 0
        for i in range(lengths.size):
            for step in range(done, lengths[i]):
                for place in range(min(_CHUNK, n_words - step - base)):
                    sums[place] += words[base + place + step] * factors[step]
            done = lengths[i]
            filter_shift = np.uint64(64 - filter_bits[i])
            for place in range(min(_CHUNK, n_words - done + 1 - base)):
                value = finish(sums[place])
                bit = value >> filter_shift
                word = filters[bitmap + np.int64(bit >> np.uint64(6))]
                if (word >> (bit & np.uint64(63))) & np.uint64(1) == 0:
                    continue
                bucket = np.int64(value >> shift)
                for ngram in range(buckets[bucket], buckets[bucket + 1]):
                    if hashes[ngram] == value:
                        if count < place_out.size:
                            place_out[count] = base + place
                            length_out[count] = done
                            ngram_out[count] = ngram
                        count += 1
            bitmap += np.int64(1) << (filter_bits[i] - 6)
    return count


_INDEX = f"{U64}, {OFFSETS}, {OFFSETS}, {U64}, {OFFSETS}"


@kernel(f"void({BYTES}, {OFFSETS}, {U32}, {U64}, {U64}, {_INDEX}, int64[::1])")
def _count(
    data: UInt8,
    offsets: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    hashes: UInt64,
    lengths: Int64,
    buckets: Int64,
    filters: UInt64,
    filter_bits: Int64,
    n_hits: Int64,
) -> None:
    """Count the n-grams of each document that the index has."""
    words = np.empty(1024, dtype=np.uint64)
    none = np.empty(0, dtype=np.int64)
    for doc in range(n_hits.size):
        at, end = offsets[doc], offsets[doc + 1]
        if end - at > words.size:
            words = np.empty(2 * (end - at), dtype=np.uint64)
        _, n_words = read_words(data, at, end, characters, ascii_, words, 0)
        n_hits[doc] = _matches(
            words,
            n_words,
            factors,
            hashes,
            lengths,
            buckets,
            filters,
            filter_bits,
            none,
            none,
            none,
        )


@kernel(
    f"void({BYTES}, {OFFSETS}, {OFFSETS}, {OFFSETS}, {U32}, {U64}, {U64}, {_INDEX},"
    " int64[::1], int64[::1], int64[::1])"
)
def _collect(
    data: UInt8,
    offsets: Int64,
    docs: Int64,
    bounds: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    hashes: UInt64,
    lengths: Int64,
    buckets: Int64,
    filters: UInt64,
    filter_bits: Int64,
    found: Int64,
    start: Int64,
    end: Int64,
) -> None:
    """Write which n-grams of the index the documents `docs` have, and their bytes."""
    for i in range(docs.size):
        at, stop = offsets[docs[i]], offsets[docs[i] + 1]
        first, last = bounds[i], bounds[i + 1]
        words = np.empty(stop - at, dtype=np.uint64)
        starts, ends = np.empty(stop - at, dtype=np.int64), np.empty(stop - at, dtype=np.int64)
        _, n_words = read_words(data, at, stop, characters, ascii_, words, 0)
        read_word_spans(data, at, stop, characters, ascii_, starts, ends)
        _matches(
            words,
            n_words,
            factors,
            hashes,
            lengths,
            buckets,
            filters,
            filter_bits,
            start[first:last],
            end[first:last],
            found[first:last],
        )
        for hit in range(first, last):
            word, length = start[hit], end[hit]
            start[hit] = starts[word] - at
            end[hit] = ends[word + length - 1] - at


@kernel(
    f"void({OFFSETS}, {OFFSETS}, {OFFSETS}, {OFFSETS}, {OFFSETS}, int64[::1], int64[::1],"
    " float32[::1])"
)
def _best(
    starts: Int64,
    ngrams: Int64,
    item_offsets: Int64,
    items: Int64,
    n_ngrams: Int64,
    item: Int64,
    shared: Int64,
    overlap: Float32,
) -> None:
    """Write each document's item of highest overlap; `ngrams[starts[d]:starts[d + 1]]` differ."""
    seen = np.zeros(n_ngrams.size, dtype=np.int64)
    for doc in range(item.size):
        best = np.int64(-1)
        for i in range(starts[doc], starts[doc + 1]):
            for place in range(item_offsets[ngrams[i]], item_offsets[ngrams[i] + 1]):
                seen[items[place]] += 1
        for i in range(starts[doc], starts[doc + 1]):
            for place in range(item_offsets[ngrams[i]], item_offsets[ngrams[i] + 1]):
                other = items[place]
                if best >= 0:
                    # Shares as cross-multiplied integers: ties are exact.
                    mine, its = seen[best] * n_ngrams[other], seen[other] * n_ngrams[best]
                    if its < mine:
                        continue
                    if its == mine and (-seen[other], other) >= (-seen[best], best):
                        continue
                best = other
        item[doc], shared[doc] = best, seen[best]
        overlap[doc] = ratio(seen[best], n_ngrams[best])
        for i in range(starts[doc], starts[doc + 1]):
            for place in range(item_offsets[ngrams[i]], item_offsets[ngrams[i] + 1]):
                seen[items[place]] = 0
