"""Bits per byte under a byte n-gram model of a reference: how well good text predicts this text.

The model is interpolated Witten-Bell (Witten & Bell 1991; Chen & Goodman 1998, section 2.5) over
bytes, from order 1 to `ORDER`:

    p(c | h) = (N(h, c) + T(h) · p(c | h′)) / (N(h) + T(h)),        p(c | no order) = 1 / 256

where h is the context of up to `ORDER - 1` bytes before c inside the document, h′ is h without its
first byte, N counts the n-gram in the reference and T(h) is how many different bytes follow h
there. N-grams of `PRUNED_FROM` bytes and more that occur once count as not seen: their mass goes to
the lower order, T(h) + singletons(h) in place of T(h) in the numerator. So each p(· | h) adds up
to 1, and what is measured is a code length: an arithmetic coder with this model would write it.

For scoring, the sums are unrolled as in back-off models: an n-gram that was seen has the cost
-log2 p(c | h), a context the cost of leaving it, -log2 of (T + singletons) / (N + T). Because every
suffix of a seen n-gram was seen too, the longest match at one byte bounds the one at the next
(Heafield 2011, KenLM), and most bytes need one look-up. An n-gram of 6 bytes and its two costs, in
256 steps each, fill one 64-bit slot of a hash table: no n-gram is ever taken for another.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.quality.prefetch import prefetch
from shards.jit import inline, kernel

ORDER = 6
"""Bytes of the longest n-gram: what fits into a slot of 64 bits beside two costs of 8."""

PRUNED_FROM = 4
"""N-grams of so many bytes are kept only if they occur twice: a third of the table, and faster."""

MAX_BITS = 24
_UNIT = 1 << 16
"""Costs add up as integers of 1/65536 bit, so that no order of additions changes a sum."""

VERSION = f"byte-ngram-witten-bell-v1 (order {ORDER}, pruned from {PRUNED_FROM})"

UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

COSTS = np.rint((np.arange(256) / 255.0) ** 2 * MAX_BITS * _UNIT).astype(np.int64)
"""Code → cost: squares, so that cheap bytes (where most text is) have fine steps; at 2 bits a step
is 0.05 bit, and rounding is to the nearest."""

_AHEAD = 12
"""Bytes between asking for a slot and reading it: as good as 8 or 16, twice as fast as none."""

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BYTE, _VALUE, _SHIFT, _LOW = (np.uint64(n) for n in (8, 16, 36, 0xFF))
_MASK = np.array([(1 << (8 * n)) - 1 for n in range(ORDER + 1)], np.uint64)


class NgramModel(NamedTuple):
    """A trained model.

    Attributes:
        slots: uint64, the hash tables of orders 1 … ORDER behind each other, each a power of two
            long. A slot is n-gram << 16 | cost code << 8 | leaving code, or all ones if empty; the
            n-gram is big-endian, its last byte the lowest.
        starts: int64 (ORDER + 1); the table of order n is `slots[starts[n - 1]:starts[n]]`.
        documents, text_bytes: what it was trained on.
    """

    slots: UInt64
    starts: Int64
    documents: int
    text_bytes: int


def train(data: UInt8, offsets: Int64) -> NgramModel:
    """Train a model on a reference; the order of its documents does not matter.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`. About 60 bytes of
            memory are needed a byte of text.
    """
    grams = np.arange(256, dtype=np.uint64)
    bytes_ = data[offsets[0] : offsets[-1]]
    counts = np.bincount(bytes_, minlength=256)
    kinds = np.count_nonzero(counts)
    p = (counts + (kinds or 1) / 256) / (len(bytes_) + (kinds or 1))
    tables = []
    for n in range(2, ORDER + 1):
        longer, counts = np.unique(_grams(data, offsets, n), return_counts=True)
        context, first = np.unique(longer >> _BYTE, return_index=True)
        kinds_h = np.diff(np.append(first, len(longer)))
        kept = counts >= (2 if n >= PRUNED_FROM else 1)
        groups = np.repeat(np.arange(len(context)), kinds_h)
        n_h = np.bincount(groups, counts, len(context))
        single = np.bincount(groups, ~kept, len(context))
        leave = (kinds_h + single) / (n_h + kinds_h)
        tables.append(_table(grams, p, context, leave))
        longer, counts, groups = longer[kept], counts[kept], groups[kept]
        below = p[np.searchsorted(grams, longer & _MASK[n - 1])]
        grams, p = longer, counts / (n_h + kinds_h)[groups] + leave[groups] * below
    tables.append(_table(grams, p, grams[:0], p[:0]))
    starts = np.cumsum([0, *map(len, tables)]).astype(np.int64)
    return NgramModel(np.concatenate(tables), starts, len(offsets) - 1, len(bytes_))


def _grams(data: UInt8, offsets: Int64, n: int) -> UInt64:
    """Return all n-grams of all documents, as big-endian numbers."""
    begin, end = int(offsets[0]), int(offsets[-1])
    count = max(end - begin - n + 1, 0)
    grams = np.zeros(count, np.uint64)
    for k in range(n):
        grams <<= _BYTE
        grams |= data[begin + k : begin + k + count]
    inside = np.ones(count, np.bool_)
    for cut in range(1, n):  # those that begin in the last bytes of a document reach the next one
        over = offsets[1:] - begin - cut
        inside[over[(over >= 0) & (over < count)]] = False
    return grams[inside]


def _table(
    grams: UInt64,
    p: npt.NDArray[np.float64],
    context: UInt64,
    leave: npt.NDArray[np.float64],
) -> UInt64:
    """Return the hash table of the n-grams (sorted) of one order, at most a quarter full."""
    leaving = np.zeros(len(grams), np.uint64)
    place = np.searchsorted(grams, context).clip(max=max(len(grams) - 1, 0))
    found = grams[place] == context if len(grams) else np.zeros(0, np.bool_)
    leaving[place[found]] = _codes(leave[found])
    slots = np.full(_table_size(len(grams)), _EMPTY, np.uint64)
    _fill(slots, grams << np.uint64(16) | _codes(p) << _BYTE | leaving)
    return slots


def _table_size(count: int) -> int:
    return max(1 << (4 * count - 1).bit_length(), 2)


def _codes(p: npt.NDArray[np.float64]) -> UInt64:
    """Return the code of the cost nearest to -log2 p."""
    bits = np.minimum(-np.log2(p), MAX_BITS) * _UNIT
    return np.searchsorted((COSTS[1:] + COSTS[:-1]) / 2, bits).astype(np.uint64)


@inline
def _first_slot(gram: np.uint64, size: int) -> int:
    """Return where to look for an n-gram first: the high bits of its product."""
    return int(np.int64((gram * _MULTIPLIER) >> _SHIFT) & (size - 1))


@kernel("void(uint64[::1], uint64[::1])")
def _fill(slots: UInt64, entries: UInt64) -> None:
    """Put sorted entries into an empty table, by linear probing."""
    for entry in entries:
        at = _first_slot(entry >> _VALUE, len(slots))
        while slots[at] != _EMPTY:
            at = (at + 1) & (len(slots) - 1)
        slots[at] = entry


@inline
def _place(starts: Int64, n: int, gram: np.uint64) -> int:
    """Return the slot at which to look for an n-gram first."""
    return int(starts[n - 1] + _first_slot(gram, starts[n] - starts[n - 1]))


@inline
def _find(slots: UInt64, starts: Int64, n: int, gram: np.uint64) -> np.uint64:
    """Return the slot of an n-gram, `_EMPTY` if it is not in its table."""
    at = _place(starts, n, gram)
    while True:
        slot = slots[at]
        if slot >> _VALUE == gram or slot == _EMPTY:
            return slot  # type: ignore[no-any-return]
        at += 1
        if at == starts[n]:
            at = starts[n - 1]


@kernel(
    "void(uint8[::1], int64[::1], uint64[::1], int64[::1], int64[::1], uint64[::1], int64[::1])"
)
def _score(
    data: UInt8,
    offsets: Int64,
    slots: UInt64,
    starts: Int64,
    costs: Int64,
    masks: UInt64,
    totals: Int64,
) -> None:
    """Set `totals[i]` to the cost of document i, in 1/65536 bit."""
    order = len(starts) - 1
    for i in range(len(offsets) - 1):
        total = 0
        history = np.uint64(0)
        ahead = np.uint64(0)  # the history as it will be, but for the document's first bytes
        matched = 0  # bytes of the longest n-gram that ends at the last byte
        end = offsets[i + 1]
        for at in range(offsets[i], end):
            if at + _AHEAD < end:
                ahead = ((ahead << _BYTE) | np.uint64(data[at + _AHEAD])) & masks[order]
                prefetch(slots, _place(starts, order, ahead))
                prefetch(slots, _place(starts, order - 1, ahead & masks[order - 1]))
                prefetch(slots, _place(starts, order - 2, ahead & masks[order - 2]))
            before = history
            history = ((history << _BYTE) | np.uint64(data[at])) & masks[order]
            n = min(matched + 1, order)
            while True:
                slot = _find(slots, starts, n, history & masks[n])
                if slot != _EMPTY:
                    total += costs[(slot >> _BYTE) & _LOW]
                    break
                n -= 1
                slot = _find(slots, starts, n, before & masks[n])
                total += costs[slot & _LOW]
            matched = n
        totals[i] = total


def bits(model: NgramModel, data: UInt8, offsets: Int64) -> Int64:
    """Return the code length of each document, int64 (n), in 1/65536 bit: exact sums."""
    totals = np.empty(len(offsets) - 1, np.int64)
    _score(data, offsets, model.slots, model.starts, COSTS, _MASK, totals)
    return totals


def bpb(model: NgramModel, data: UInt8, offsets: Int64) -> npt.NDArray[np.float32]:
    """Return bits per byte of each document under the model, float32 (n); 0 for empty ones."""
    lengths = np.maximum(np.diff(offsets), 1)
    return (bits(model, data, offsets) / _UNIT / lengths).astype(np.float32)
