"""Is the validation in the training data? Shares of n-grams of tokens, and what is taken out.

An n-gram is 13 tokens: with the small vocabularies of studies that is about the 8 words of which
PaLM's check uses 70 % (Chowdhery et al. 2022, §8). What is compared are the tokens that models
read, so the check needs no text and no column, and sees what a split by near-duplicate cluster may
have left: quotations, templates, licences.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from shards.dataset import TokenDataset
from shards.errors import TrainingError
from trainer.data import Documents
from trainer.study_config import StudyConfig
from trainer.study_records import OverlapResult

NGRAM = 13
_CHUNK = 1 << 20
_BITS = 22
"""Of the table that tells most n-grams of the training data apart from all of the validation's."""

_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def ngram_hashes(tokens: npt.NDArray[np.unsignedinteger], offsets: Ints) -> tuple[Hashes, Ints]:
    """Return the hash of each n-gram that lies in one document, uint64[m], and its document.

    h(i) = Σ_j t(i + j)·M^j modulo 2^64, j < 13, by differences of one running sum: M is odd, so
    M^i can be divided out.

    Args:
        tokens: [t], documents one after the other.
        offsets: int64[n + 1]; document i is `tokens[offsets[i]:offsets[i + 1]]`.
    """
    count = len(tokens) - NGRAM + 1
    if count < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    powers = np.full(len(tokens) + 1, _MULTIPLIER, np.uint64)
    inverses = np.full(count, _INVERSE, np.uint64)
    powers[0] = inverses[0] = 1
    np.cumprod(powers, out=powers)
    np.cumprod(inverses, out=inverses)
    sums = np.zeros(len(tokens) + 1, np.uint64)
    np.cumsum((tokens.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=sums[1:])
    hashes = (sums[NGRAM:] - sums[:-NGRAM]) * inverses
    document = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    inside = document[:count] == document[NGRAM - 1 :]
    return hashes[inside], document[:count][inside]


def decontaminate(
    dataset: TokenDataset, study: StudyConfig, valid: Documents
) -> tuple[Documents, OverlapResult]:
    """Take out validation documents that are largely in what an arm may read, and say so.

    Every arm reads documents of some selection in `study.arms`, so these are looked through, and
    those of `study.apart_from`.

    Raises:
        TrainingError: fewer than two documents are left.
        RecipeError: a selection is not one.
        CorruptError: a block does not match its hash.
    """
    hashes, document = ngram_hashes(valid.tokens, valid.offsets)
    known, place = np.unique(hashes, return_inverse=True)
    seen = _seen(dataset, study, known)
    total = np.bincount(document, minlength=len(valid))
    everywhere = np.logical_or.reduce(list(seen.values()))
    shared = np.bincount(document, everywhere[place], minlength=len(valid))
    share = shared / np.maximum(total, 1)
    kept = share <= study.max_overlap
    if np.count_nonzero(kept) < 2:
        raise TrainingError(
            f"study.max_overlap = {study.max_overlap}: of {len(valid)} validation documents"
            f" {np.count_nonzero(kept)} have no more of their {NGRAM}-grams of tokens in what the"
            " arms read, and an interval needs at least 2; deduplicate (dedup.near) before the"
            " split, or raise it (1: no document is taken out)"
        )
    own = kept[document]
    return _subset(valid, kept), OverlapResult(
        ngram=NGRAM,
        limit=study.max_overlap,
        documents=len(valid),
        removed=int(np.count_nonzero(~kept)),
        short=int(np.count_nonzero(total == 0)),
        highest=float(share[kept].max()),
        arms={
            name: float(found[place][own].mean()) if own.any() else 0.0
            for name, found in seen.items()
            if name in study.arms
        },
    )


def _seen(
    dataset: TokenDataset, study: StudyConfig, known: Hashes
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which of the sorted hashes occur in the documents of each selection."""
    seen = {name: np.zeros(len(known), np.bool_) for name in _selections(study)}
    maybe = np.zeros(1 << _BITS, np.bool_)
    maybe[_slots(known)] = True
    for masks, tokens, offsets in _chunks(dataset, study):
        hashes, document = ngram_hashes(tokens, offsets)
        hit = np.flatnonzero(maybe[_slots(hashes)])
        if not len(hit):
            continue
        place = np.minimum(np.searchsorted(known, hashes[hit]), len(known) - 1)
        equal = known[place] == hashes[hit]
        place, document = place[equal], document[hit[equal]]
        for name, mask in masks.items():
            seen[name][place[mask[document]]] = True
    return seen


def _selections(study: StudyConfig) -> dict[str, str]:
    """Return what is looked through, by the arm or, in brackets, the place in `apart_from`."""
    more = {f"[{number}]": select for number, select in enumerate(study.apart_from)}
    return study.arms | more


def _slots(hashes: Hashes) -> npt.NDArray[np.intp]:
    return (hashes >> np.uint64(64 - _BITS)).astype(np.intp)


def _chunks(
    dataset: TokenDataset, study: StudyConfig
) -> Iterator[tuple[dict[str, npt.NDArray[np.bool_]], npt.NDArray[np.unsignedinteger], Ints]]:
    """Yield runs of whole documents: which selections have each, their tokens, their offsets."""
    for index in range(len(dataset.entries)):
        shard = dataset.shard(index)
        masks = {name: dataset.mask(index, text) for name, text in _selections(study).items()}
        offsets = np.asarray(shard.offsets, np.int64)
        first = 0
        while first < len(offsets) - 1:
            end = int(np.searchsorted(offsets, offsets[first] + _CHUNK, side="right")) - 1
            end = min(max(end, first + 1), len(offsets) - 1)
            start, stop = int(offsets[first]), int(offsets[end])
            tokens = dataset.tokens(index, start, stop - start)
            part = {name: mask[first:end] for name, mask in masks.items()}
            yield part, tokens, offsets[first : end + 1] - start
            first = end


def _subset(documents: Documents, mask: npt.NDArray[np.bool_]) -> Documents:
    """Return some of the documents, in their order."""
    lengths = np.diff(documents.offsets)
    bits = documents.zstd_bits
    return dataclasses.replace(
        documents,
        tokens=documents.tokens[np.repeat(mask, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[mask])]).astype(np.int64),
        bytes=documents.bytes[mask],
        source=documents.source[mask],
        zstd_bits=None if bits is None else bits[mask],
    )
