"""How much of a document is common property of a corpus: the share of its text in many documents.

Well-written boilerplate is good prose to every model of one document; only the corpus tells that
it stands everywhere. A *window* is `WINDOW` bytes of a document; those whose hash ends in four zero
bits are looked at, about one in 16, the same ones wherever they stand. A window is *common* if it
stands in `COMMON` or more documents of the base. Older versions and translations of a page give it
a few copies, hence not 2.
"""

import numpy as np
import numpy.typing as npt

from shards.jit import inline, kernel

WINDOW = 32
COMMON = 10
VERSION = f"common-windows-v1 ({WINDOW} bytes, 1 in 16, {COMMON} documents)"

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_LEAVING = np.uint64(pow(int(_FACTOR), WINDOW, 1 << 64))
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_HALF, _SAMPLED = np.uint64(32), np.uint64(15)
_EMPTY = np.uint64(1)  # is never sampled

UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]


@inline
def _roll(data: UInt8, begin: int, at: int, rolled: np.uint64) -> np.uint64:
    """Take the byte at `at` into the polynomial hash of the last `WINDOW` bytes from `begin` on."""
    rolled = rolled * _FACTOR + np.uint64(data[at])
    if at - begin >= WINDOW:
        rolled -= np.uint64(data[at - WINDOW]) * _LEAVING
    return rolled


@inline
def _mixed(rolled: np.uint64) -> np.uint64:
    mixed = (rolled ^ (rolled >> _HALF)) * _MIX
    return mixed ^ (mixed >> _HALF)


@kernel("int64(uint8[::1], int64[::1], uint64[::1], int64[::1])")
def _sample(data: UInt8, offsets: Int64, hashes: UInt64, documents: Int64) -> int:
    """Write sampled windows' hashes and documents, as many as there is room for; count all."""
    count = 0
    for i in range(len(offsets) - 1):
        begin, rolled = offsets[i], np.uint64(0)
        for at in range(begin, offsets[i + 1]):
            rolled = _roll(data, begin, at, rolled)
            if at - begin >= WINDOW - 1:
                mixed = _mixed(rolled)
                if mixed & _SAMPLED == 0:
                    if count < len(hashes):
                        hashes[count], documents[count] = mixed, i
                    count += 1
    return count


@kernel("void(uint8[::1], int64[::1], uint64[::1], float32[::1])")
def _share(data: UInt8, offsets: Int64, table: UInt64, shares: npt.NDArray[np.float32]) -> None:
    mask = len(table) - 1
    for i in range(len(offsets) - 1):
        begin, rolled = offsets[i], np.uint64(0)
        sampled = common = 0
        for at in range(begin, offsets[i + 1]):
            rolled = _roll(data, begin, at, rolled)
            if at - begin >= WINDOW - 1:
                mixed = _mixed(rolled)
                if mixed & _SAMPLED == 0:
                    sampled += 1
                    slot = np.int64(mixed >> _HALF) & mask
                    while table[slot] != _EMPTY:
                        if table[slot] == mixed:
                            common += 1
                            break
                        slot = (slot + 1) & mask
        shares[i] = common / max(sampled, 1)


@kernel("void(uint64[::1], uint64[::1])")
def _fill(table: UInt64, hashes: UInt64) -> None:
    for mixed in hashes:
        slot = np.int64(mixed >> _HALF) & (len(table) - 1)
        while table[slot] != _EMPTY:
            slot = (slot + 1) & (len(table) - 1)
        table[slot] = mixed


def find_common(data: UInt8, offsets: Int64) -> UInt64:
    """Return the common windows of a base as a hash table, uint64, at most half full.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
    """
    count = _sample(data, offsets, np.empty(0, np.uint64), np.empty(0, np.int64))
    hashes, documents = np.empty(count, np.uint64), np.empty(count, np.int64)
    _sample(data, offsets, hashes, documents)
    order = np.lexsort((documents, hashes))
    hashes, documents = hashes[order], documents[order]
    first = np.ones(count, np.bool_)  # of a document's equal windows
    first[1:] = (hashes[1:] != hashes[:-1]) | (documents[1:] != documents[:-1])
    windows, n_documents = np.unique(hashes[first], return_counts=True)
    common = windows[n_documents >= COMMON]
    table = np.full(1 << (2 * len(common)).bit_length(), _EMPTY, np.uint64)
    _fill(table, common)
    return table


def common_share(table: UInt64, data: UInt8, offsets: Int64) -> npt.NDArray[np.float32]:
    """Return the share of each document's sampled windows that are common, float32 (n).

    0 for documents without a sampled window: most of those below 40 bytes.
    """
    shares = np.empty(len(offsets) - 1, np.float32)
    _share(data, offsets, table, shares)
    return shares
