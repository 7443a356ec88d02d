"""Near duplicates of documents that arrive later, against all before, without their texts.

A `SignatureIndex` holds what one run over everything would need again: of each document its order
key, content hash, band hashes and shingle set, and the verified edges. `extend` makes the edges of
new documents with each other and with the old ones. Because a document's candidate pairs depend on
nothing that ranks after it (`dedup.candidates`), the extended index is *equal* to the index of all
documents made at once, whatever the parts; so are the decisions of the `earliest` policy and
the clusters that follow from it. Old decisions never change: a later document ranks after them.

Whole sets, not sketches of them, are stored, since any estimate would make a pair near the
threshold fall differently than in one run. A document takes 8 bytes for each different shingle and
33 + 8·bands bytes (201 at the default 21), an edge 20 bytes.
"""

from typing import NamedTuple

import numpy as np

from dedup.bands import band_hashes, banding
from dedup.candidates import candidate_pairs
from dedup.components import connected_components
from dedup.config import NearConfig
from dedup.keep import Bool, keep_greedy
from dedup.minhash import signatures
from dedup.shingles import shingle_sets
from dedup.verify import Float32, similarities
from dedup.words import Int64, UInt8, UInt64
from shards.errors import DatasetError


class SignatureIndex(NamedTuple):
    """Documents by their order keys, which say what `earliest` means, and their edges."""

    config: NearConfig
    """What the arrays were made with."""
    key: UInt64
    """uint64[n], increasing."""
    content: UInt64
    """uint64[n], 64 bits of the content hash."""
    eligible: Bool
    """bool[n], not dropped for another reason."""
    bands: UInt64
    """uint64[n, b], band hashes."""
    sets: UInt64
    """uint64[m], sorted shingle sets."""
    bounds: Int64
    """int64[n + 1], into `sets`."""
    left: Int64
    """int64[p], the documents (by place) of the verified pairs, left < right, sorted by right."""
    right: Int64
    """int64[p]"""
    similarity: Float32
    """float32[p], by `config.measure`, each at or above the threshold."""


class Decisions(NamedTuple):
    """What follows from an index under the `earliest` policy, by place."""

    matched: Int64
    """int64[n], the kept duplicate of a dropped document; -1: kept or not eligible."""
    similarity: Float32
    """float32[n], how similar it is; 0 without one."""
    cluster: Int64
    """int64[n], the first document of the connected component."""


def empty_index(config: NearConfig) -> SignatureIndex:
    """Return the index of no documents."""
    none, no_keys = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
    bands = np.empty((0, banding(config)[0]), dtype=np.uint64)
    no_flags, zero = np.empty(0, dtype=np.bool_), np.zeros(1, dtype=np.int64)
    no_values = np.empty(0, dtype=np.float32)
    return SignatureIndex(
        config, no_keys, no_keys, no_flags, bands, no_keys, zero, none, none, no_values
    )


def extend(
    index: SignatureIndex,
    data: UInt8,
    offsets: Int64,
    key: UInt64,
    content: UInt64,
    eligible: Bool | None = None,
) -> SignatureIndex:
    """Return the index of the documents of `index` and of later ones.

    Args:
        data, offsets: the new documents (uint8[::1], int64[n + 1]), in any order.
        key: uint64[n], their order keys: all different, and above those of the index.
        content: uint64[n], 64 bits of each content hash.
        eligible: bool[n], false for what filters drop; all by default.

    Raises:
        DatasetError: a key is not above those of the index, or occurs twice.
    """
    order = np.argsort(key, kind="stable")
    keys = np.concatenate([index.key, key[order]])
    wrong = np.flatnonzero(keys[1:] <= keys[:-1])
    if wrong.size:
        raise DatasetError(
            f"order key {keys[wrong[0] + 1]} of a new document is not above"
            f" {keys[wrong[0]]}: an index grows by later documents with keys of their own;"
            " make the index anew to put documents in between"
        )
    config, n_old = index.config, index.key.size
    bands, rows = banding(config)
    hashes = band_hashes(signatures(data, offsets, config), bands, rows)[order]
    sets, bounds = shingle_sets(data, offsets, config.ngram, config.unit, order)
    flags = np.ones(key.size, dtype=np.bool_) if eligible is None else eligible[order]
    grown = index._replace(
        key=keys,
        content=np.concatenate([index.content, content[order]]),
        eligible=np.concatenate([index.eligible, flags]),
        bands=np.concatenate([index.bands, hashes]),
        sets=np.concatenate([index.sets, sets]),
        bounds=np.concatenate([index.bounds, index.bounds[-1] + bounds[1:]]),
    )
    left, right = _new_pairs(grown, n_old)
    similarity, _ = similarities(grown.sets, grown.bounds, left, right, config.measure)
    real = similarity >= np.float32(config.threshold)
    return grown._replace(
        left=np.concatenate([index.left, left[real]]),
        right=np.concatenate([index.right, right[real]]),
        similarity=np.concatenate([index.similarity, similarity[real]]),
    )


def decide(index: SignatureIndex) -> Decisions:
    """Return what one run with `keep = "earliest"` over all documents of the index decides."""
    n = index.key.size
    edges = (index.left, index.right)
    matched, similarity = keep_greedy(
        n, *edges, index.similarity, index.eligible, np.arange(n, dtype=np.int64)
    )
    return Decisions(matched, similarity, connected_components(n, *edges))


def _new_pairs(index: SignatureIndex, n_old: int) -> tuple[Int64, Int64]:
    """Return the candidate pairs whose later document is new, sorted by (right, left).

    Only groups that a new document is in are looked at; their old members have to be there, since
    the pairs of a large group go by the place in it.
    """
    new = np.unique(index.bands[n_old:])
    old = index.bands[:n_old].ravel()
    place = np.minimum(np.searchsorted(new, old), max(new.size - 1, 0))
    met = np.flatnonzero(new[place] == old) if new.size else np.empty(0, dtype=np.int64)
    width = index.bands.shape[1]
    rows = np.concatenate([met, np.arange(n_old * width, index.bands.size)])
    docs = rows // width
    left, right = candidate_pairs(index.bands.ravel()[rows], docs, index.content[docs], docs)
    fresh = right >= n_old
    left, right = left[fresh], right[fresh]
    order = np.lexsort((left, right))
    return left[order], right[order]
