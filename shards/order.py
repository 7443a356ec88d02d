"""Sample order: a keyed permutation of [0, n) that needs no memory and can start anywhere.

A Feistel network (Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom
functions", 1988) is a bijection of 2b-bit numbers for any round function. Numbers that fall outside
[0, n) are sent through again until one falls inside, which keeps it a bijection of [0, n): "cycle
walking" (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 2). Here
2^(2b) < 4n for n > 1, so fewer than 4 passes are expected. Ten rounds as in FF1 (NIST SP 800-38G);
the round function and key schedule are SplitMix64's finaliser (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014). Good mixing is wanted, not secrecy.

The windowed order is for data that is larger than the cache it is read through. Samples are cut
into chunks of neighbours; an epoch permutes the chunks, takes so many of them at a time, a window,
and permutes the samples of each window. So only a window's chunks must be at hand, and two samples
are in the same window with a chance of about (chunks of a window) / (chunks). Like the other it is
a closed formula of (seed, epoch, place), and knows no world size.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shards.jit import inline, kernel

ORDER_VERSION = "feistel10-splitmix64/1"
"""Name and version of the permutation: a change of it changes every training run."""

WINDOW_VERSION = "windowed/1"
"""Name and version of the windowed order built on it."""

_ROUNDS = 10
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ONE = np.uint64(1)


@inline
def _mix(x: Any) -> Any:
    """SplitMix64's finaliser: a bijection of uint64 in which every input bit reaches all others."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@inline
def permuted(place: Any, n: Any, key: Any) -> Any:
    """Return where `place` in [0, n) goes, inside a kernel."""
    half = np.uint64(0)
    while (_ONE << (half + half)) < np.uint64(n):
        half += _ONE
    mask = (_ONE << half) - _ONE
    value = np.uint64(place)
    while True:
        left, right = value >> half, value & mask
        for turn in range(_ROUNDS):
            turned = _mix(right + _mix(key + np.uint64(turn) * _GOLDEN)) & mask
            left, right = right, left ^ turned
        value = (left << half) | right
        if value < np.uint64(n):
            return np.int64(value)


@inline
def order_key(seed: Any, epoch: Any) -> Any:
    """Return the key of an epoch's permutation, inside a kernel."""
    return _mix(_mix(np.uint64(seed) + _GOLDEN) ^ (np.uint64(epoch) * _MIX_1 + _ONE))


@inline
def windowed(place: Any, n: Any, key: Any, chunk: Any, chunks: Any) -> Any:
    """Return where `place` in [0, n) goes in the windowed order, inside a kernel.

    `chunk` samples make a chunk, `chunks` of them a window; the last window has what is left, and
    in it the samples after the last whole chunk.
    """
    size = chunk * chunks
    window = place // size
    first = window * size
    inside_key = _mix(key ^ _mix(np.uint64(window) + _MIX_2))
    inside = permuted(place - first, min(size, n - first), inside_key)
    slot = window * chunks + inside // chunk
    if slot < n // chunk:
        slot = permuted(slot, n // chunk, _mix(key ^ _MIX_2))
    return slot * chunk + inside % chunk


@kernel("int64(int64, int64, int64, int64)")
def permute(place: int, n: int, seed: int, epoch: int) -> int:
    """Return where `place` in [0, n) goes in the permutation keyed by (seed, epoch)."""
    return int(permuted(place, n, order_key(seed, epoch)))


@kernel("int64[::1](int64[::1], int64, int64)")
def sample_order(indices: npt.NDArray[np.int64], n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the samples `int64[B]` at global sample indices `int64[B]` of an endless stream.

    Index g is place g % n of epoch g // n; each epoch is its own permutation of n samples, n >= 1.
    """
    out = np.empty_like(indices)
    for i in range(len(indices)):
        out[i] = permuted(indices[i] % n, n, order_key(seed, indices[i] // n))
    return out


@kernel("int64[::1](int64[::1], int64, int64, int64, int64)")
def windowed_order(
    indices: npt.NDArray[np.int64], n: int, seed: int, chunk: int, chunks: int
) -> npt.NDArray[np.int64]:
    """Return what `sample_order` does, in the windowed order; with chunk 0, the same as it."""
    out = np.empty_like(indices)
    for i in range(len(indices)):
        place, key = indices[i] % n, order_key(seed, indices[i] // n)
        if chunk:
            out[i] = windowed(place, n, key, chunk, chunks)
        else:
            out[i] = permuted(place, n, key)
    return out
