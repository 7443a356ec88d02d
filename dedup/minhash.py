"""MinHash signatures straight from text, without ever holding a document's shingles.

Bit-identical to datasketch 2.0's `MinHash(scheme=…)` fed with the same 32-bit shingle hashes:
`affine32` is min over a·fmix32(h) + b mod 2³², `legacy` min over ((a·h + b) mod (2⁶¹ − 1)) mod 2³².

`oph` is one-permutation hashing: each shingle is hashed once, falls into one of K bins, and a bin
keeps its smallest value (Li, Owen and Zhang 2012); an empty bin j takes the value of one that is
not, chosen anew for each j (Shrivastava 2017, "Optimal Densification for Fast and Accurate Minwise
Hashing"): the first that a random walk from j hits, and after 32 misses (in a text of one shingle
a walk takes K steps a bin) the filled bin k of smallest hash(j, k). For each j that is an order of
all bins, the same in all documents, of which the first filled one is taken: what the paper needs.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from dedup.config import NearConfig, Scheme
from dedup.shingles import coefficients, combine
from dedup.words import (
    BYTES,
    OFFSETS,
    U32,
    U64,
    Int64,
    UInt8,
    UInt32,
    UInt64,
    read_elements,
    tables,
    unit_code,
)
from shards.jit import inline, kernel

EMPTY = np.uint32(0xFFFFFFFF)
"""A signature that is all `EMPTY` belongs to a document without elements: it matches nothing."""

_MERSENNE = (1 << 61) - 1
_CHUNK = 2048
_WALK = 32
_FAR = 0x85EBCA77  # keeps the hashes of the second choice apart from those of the walk
_SCHEMES = {"affine32": 0, "legacy": 1, "oph": 2}


@cache
def permutations(num_perm: int, seed: int, scheme: Scheme) -> tuple[UInt64, UInt64]:
    """Return datasketch's (a, b) for a seed: two uint64[num_perm], drawn in its order."""
    generator = np.random.RandomState(seed)
    if scheme == "legacy":
        pairs = [
            (
                generator.randint(1, _MERSENNE, dtype=np.uint64),
                generator.randint(0, _MERSENNE, dtype=np.uint64),
            )
            for _ in range(num_perm)
        ]
        a, b = np.array(pairs, dtype=np.uint64).T
    else:
        # `oph` takes one permutation of these, the first.
        a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        b = generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    return np.ascontiguousarray(a, np.uint64), np.ascontiguousarray(b, np.uint64)


def signatures(data: UInt8, offsets: Int64, config: NearConfig) -> npt.NDArray[np.uint32]:
    """Return the documents' MinHash signatures: uint32[n, config.num_perm].

    Args:
        data, offsets: the documents (uint8[::1], int64[n + 1]).
        config: uses `ngram`, `unit`, `num_perm`, `scheme` and `seed`.
    """
    a, b = permutations(config.num_perm, config.seed, config.scheme)
    out = np.full((offsets.size - 1, config.num_perm), EMPTY, dtype=np.uint32)
    table = tables(config.unit)
    _signatures(
        unit_code(config.unit),
        data,
        offsets,
        table.characters,
        table.ascii,
        coefficients(config.ngram),
        a,
        b,
        _SCHEMES[config.scheme],
        out,
    )
    return out


@inline
def _fmix32(h: np.uint32) -> np.uint32:
    """MurmurHash3's finaliser, datasketch's pre-mix."""
    h ^= h >> np.uint32(16)
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h ^= h >> np.uint32(13)
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@inline
def _minima_affine32(hashes: UInt64, count: int, a: UInt32, b: UInt32, minima: UInt32) -> None:
    """Lower `minima` to the permuted upper halves of `hashes[:count]`, four shingles a pass.

    Four at a time, a, b and the minima are loaded once for four multiply-add-minimum steps.
    """
    last = count - 1
    for i in range(0, count, 4):
        # A repeated shingle does not change a minimum, so the tail repeats the last one.
        h0 = _fmix32(np.uint32(hashes[i] >> np.uint64(32)))
        h1 = _fmix32(np.uint32(hashes[min(i + 1, last)] >> np.uint64(32)))
        h2 = _fmix32(np.uint32(hashes[min(i + 2, last)] >> np.uint64(32)))
        h3 = _fmix32(np.uint32(hashes[min(i + 3, last)] >> np.uint64(32)))
        for k in range(a.size):
            v0 = np.uint32(a[k] * h0 + b[k])
            v1 = np.uint32(a[k] * h1 + b[k])
            v2 = np.uint32(a[k] * h2 + b[k])
            v3 = np.uint32(a[k] * h3 + b[k])
            minima[k] = min(v0, v1, v2, v3, minima[k])


@inline
def _minima_legacy(hashes: UInt64, count: int, a: UInt64, b: UInt64, minima: UInt32) -> None:
    """`_minima_affine32` for datasketch's old scheme; a·h wraps modulo 2⁶⁴ as it does there."""
    for i in range(count):
        h = hashes[i] >> np.uint64(32)
        for k in range(a.size):
            value = np.uint32(((h * a[k] + b[k]) % np.uint64(_MERSENNE)) & np.uint64(0xFFFFFFFF))
            minima[k] = min(value, minima[k])


@inline
def _minima_oph(hashes: UInt64, count: int, a: np.uint32, b: np.uint32, minima: UInt32) -> None:
    """Lower each shingle's bin to its value; bin k takes the values from k·2³²/K on.

    Overwrites `hashes`: a loop that touches nothing but them is vectorised.
    """
    bins = np.uint64(minima.size)
    for i in range(count):
        h = np.uint32(a * _fmix32(np.uint32(hashes[i] >> np.uint64(32))) + b)
        # An affine map alone orders a bin's values as it orders another's.
        hashes[i] = np.uint64(min(_fmix32(h), np.uint32(EMPTY - 1)))
    for i in range(count):
        place = np.int64((hashes[i] * bins) >> np.uint64(32))
        minima[place] = min(minima[place], np.uint32(hashes[i]))


@inline
def _densify(minima: UInt32, filled: Int64, own: Int64) -> None:
    """Give each empty bin the value of a filled one. `filled`, `own` (int64[K]) are scratch.

    A value tells its bin, so a borrowed one never equals what the bin would hold by itself.
    """
    bins = minima.size
    n_filled = 0
    for place in range(bins):
        own[place] = np.int64(minima[place] != EMPTY)
        if own[place]:
            filled[n_filled] = place
            n_filled += 1
    if n_filled in (bins, 0):
        return
    for place in range(bins):
        if own[place]:
            continue
        best, least = np.int64(-1), np.uint32(0)
        for step in range(_WALK):
            h = _fmix32(np.uint32(place * _WALK + step + 1))
            other = np.int64((np.uint64(h) * np.uint64(bins)) >> np.uint64(32))
            if own[other]:
                best = other
                break
        if best < 0:
            for i in range(n_filled):
                h = _fmix32(np.uint32(place * bins + filled[i]) ^ np.uint32(_FAR))
                if best < 0 or h < least:
                    best, least = filled[i], h
        minima[place] = minima[best]


@kernel(
    f"void(int64, {BYTES}, {OFFSETS}, {U32}, {U64}, {U64}, {U64}, {U64}, int64, uint32[:, ::1])"
)
def _signatures(
    unit: int,
    data: UInt8,
    offsets: Int64,
    characters: UInt32,
    ascii_: UInt64,
    factors: UInt64,
    a: UInt64,
    b: UInt64,
    scheme: int,
    out: npt.NDArray[np.uint32],
) -> None:
    """Fill `out` (all `EMPTY` before): read a chunk of elements, combine, take minima, go on."""
    ngram = factors.size
    elements = np.empty(_CHUNK, dtype=np.uint64)
    hashes = np.empty(_CHUNK, dtype=np.uint64)
    a32 = a.astype(np.uint32)
    b32 = b.astype(np.uint32)
    filled, own = np.empty((2, out.shape[1]), dtype=np.int64)
    for doc in range(offsets.size - 1):
        at, end = offsets[doc], offsets[doc + 1]
        carried = 0
        first = True
        while at < end:
            at, count = read_elements(
                unit, data, at, end, characters, ascii_, elements, carried, first
            )
            if count < ngram and (not first or count == 0):
                break
            if first or count > carried:
                n_shingles = combine(elements, count, factors, hashes)
                if scheme == 1:
                    _minima_legacy(hashes, n_shingles, a, b, out[doc])
                elif scheme == 2:
                    _minima_oph(hashes, n_shingles, a32[0], b32[0], out[doc])
                else:
                    _minima_affine32(hashes, n_shingles, a32, b32, out[doc])
            carried = min(count, ngram - 1)
            for i in range(carried):
                elements[i] = elements[count - carried + i]
            first = False
        if scheme == 2 and not first:
            _densify(out[doc], filled, own)
