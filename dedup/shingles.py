"""`shingle-v1`: n-grams of words or characters as 64-bit hashes.

A shingle's hash is multilinear in its n element hashes (Σ hᵢ·cᵢ mod 2⁶⁴ with fixed odd cᵢ, as in
Lemire and Kaser 2014, "Strongly universal string hashing is fast"), then one multiply-xorshift.
MinHash takes the upper 32 bits; exact verification takes all 64. A document of fewer than n
elements has one shingle of all its elements; one without elements has none.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dedup.config import Unit
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
    read_elements,
    splitmix64,
    tables,
    unit_code,
)
from shards.jit import inline, kernel

_FINAL = np.uint64(0x9FB21C651E98DF25)


def coefficients(ngram: int) -> UInt64:
    """Return the n odd multipliers of `shingle-v1`: uint64[ngram]."""
    return np.array([splitmix64(place) | 1 for place in range(ngram)], dtype=np.uint64)


def shingles(data: UInt8, offsets: Int64, ngram: int, unit: Unit) -> tuple[UInt64, Int64]:
    """Hash every shingle of every document, in reading order, repeats included.

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        ngram: elements of a shingle, ≥ 1.
        unit: `word`, `char` or `space`.

    Returns:
        (uint64[m] hashes, int64[n + 1] offsets into them).
    """
    return _fill(data, offsets[:-1], offsets[1:], ngram, unit, _fill_shingles)


def shingle_sets(
    data: UInt8, offsets: Int64, ngram: int, unit: Unit, docs: Int64 | None = None
) -> tuple[UInt64, Int64]:
    """Hash documents' *sets* of shingles: like `shingles`, but sorted and without repeats.

    Args:
        docs: int64[d], the documents wanted, in the order of the result; all by default.
    """
    starts, ends = offsets[:-1], offsets[1:]
    if docs is not None:
        starts, ends = starts[docs], ends[docs]
    return _fill(data, starts, ends, ngram, unit, _fill_sets)


def _fill(
    data: UInt8, starts: Int64, ends: Int64, ngram: int, unit: Unit, fill: Callable[..., Any]
) -> tuple[UInt64, Int64]:
    n_bytes = int((ends - starts).sum())
    n_docs = starts.size
    # Never-touched pages cost nothing, so room for the worst case is cheap and saves a pass and
    # a copy.
    out = np.empty(max_elements(n_bytes, unit) + n_docs, dtype=np.uint64)
    out_offsets = np.zeros(n_docs + 1, dtype=np.int64)
    table = tables(unit)
    fill(
        unit_code(unit),
        data,
        np.ascontiguousarray(starts),
        np.ascontiguousarray(ends),
        table.characters,
        table.ascii,
        coefficients(ngram),
        out,
        out_offsets,
    )
    return out[: out_offsets[-1]], out_offsets


@inline
def finish(total: np.uint64) -> np.uint64:
    """Turn the sum Σ hᵢ·cᵢ of a shingle into its hash: a bijection."""
    total = (total ^ (total >> np.uint64(32))) * _FINAL
    return total ^ (total >> np.uint64(29))


@inline
def combine(elements: UInt64, count: int, factors: UInt64, out: UInt64) -> int:
    """Turn `count` ≥ 1 element hashes into shingle hashes in `out` (may be `elements`).

    Returns the number of shingles: count - n + 1, or one of all elements where count < n.
    """
    ngram = factors.size if factors.size < count else count
    n_shingles = count - ngram + 1
    for place in range(n_shingles):
        total = elements[place] * factors[0]
        for step in range(1, ngram):
            total += elements[place + step] * factors[step]
        out[place] = finish(total)
    return n_shingles


@inline
def _sort_unique(values: UInt64, count: int, scratch: UInt64, starts: Int64) -> int:
    """Sort `values[:count]` in place, drop repeats, return how many are left.

    The values are hashes, so one pass into `count` / 2 or more buckets by their upper bits leaves
    them almost sorted, and an insertion sort finishes in linear expected time.
    """
    bits = 1
    while (2 << bits) < count:
        bits += 1
    shift = np.uint64(64 - bits)
    n_buckets = 1 << bits
    starts[:n_buckets] = 0
    for i in range(count):
        starts[np.int64(values[i] >> shift)] += 1
    before = 0
    for bucket in range(n_buckets):
        size = starts[bucket]
        starts[bucket] = before
        before += size
    for i in range(count):
        bucket = int(np.int64(values[i] >> shift))
        scratch[starts[bucket]] = values[i]
        starts[bucket] += 1
    for i in range(1, count):
        value = scratch[i]
        j = i - 1
        while j >= 0 and scratch[j] > value:
            scratch[j + 1] = scratch[j]
            j -= 1
        scratch[j + 1] = value
    kept = 0
    for i in range(count):
        values[kept] = scratch[i]
        kept += int(i == 0 or scratch[i] != scratch[i - 1])
    return kept


_FILL_SIGNATURE = (
    f"void(int64, {BYTES}, {OFFSETS}, {OFFSETS}, {U32}, {U64}, {U64}, uint64[::1], int64[::1])"
)


@kernel(_FILL_SIGNATURE)
def _fill_shingles(
    unit: int,
    data: UInt8,
    starts: Int64,
    ends: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    out: UInt64,
    out_offsets: Int64,
) -> None:
    """Write shingle hashes to `out` and their offsets to `out_offsets`."""
    filled = 0
    for doc in range(starts.size):
        here = out[filled:]
        _, count = read_elements(
            unit, data, starts[doc], ends[doc], characters, ascii_, here, 0, True
        )
        if count > 0:
            filled += combine(here, count, factors, here)
        out_offsets[doc + 1] = filled


@kernel(_FILL_SIGNATURE)
def _fill_sets(
    unit: int,
    data: UInt8,
    starts: Int64,
    ends: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    out: UInt64,
    out_offsets: Int64,
) -> None:
    """Write sorted sets of shingle hashes to `out` and their offsets to `out_offsets`."""
    filled = 0
    scratch = np.empty(1024, dtype=np.uint64)
    buckets = np.empty(1024, dtype=np.int64)
    for doc in range(starts.size):
        here = out[filled:]
        _, count = read_elements(
            unit, data, starts[doc], ends[doc], characters, ascii_, here, 0, True
        )
        if count > 0:
            count = combine(here, count, factors, here)
            if count > scratch.size:
                scratch = np.empty(2 * count, dtype=np.uint64)
                buckets = np.empty(2 * count, dtype=np.int64)
            filled += _sort_unique(here, count, scratch, buckets)
        out_offsets[doc + 1] = filled
