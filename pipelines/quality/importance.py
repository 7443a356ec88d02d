"""How much likelier a document is under a target than under a base: importance weights as columns.

    [signals.importance.books]          # adds the column importance_books
    paths = ["books/*.jsonl.zst"]       # the target: documents to be like
    base_paths = ["sample.jsonl.zst"]   # the base (256 MiB of it); the inputs if left out
    hash = "…"                          # optional: refuse any other outcome

DSIR (Xie et al. 2023, "Data selection for language models via importance resampling",
arXiv:2302.03169, section 4): a text is a bag of hashed words and pairs of neighbouring words, the
target and the base are distributions over `BUCKETS` buckets of them, and a document's weight is

    log p_target(x) - log p_base(x) = Σ over its words and pairs  r(bucket),
    r(b) = ln(p_target(b) + 1e-8) - ln(p_base(b) + 1e-8),   p(b) = times that b occurs / all times

in nats; the 1e-8 stand in the authors' code and not in the paper. RedPajama-v2's
`rps_doc_books_importance`, `…_openwebtext_importance` and `…_wikipedia_importance` are the same
against books, OpenWebText and Wikipedia. The weight is a sum, so long documents have large ones, of
either sign; per word it is `importance_books / gopher_words`. A bucket that only one of the two has
weighs up to 18 nats, so both should have some 100,000 words: then few buckets are empty.

A *word* is `web.py`'s: what stands between the first and the last letter or digit of a run without
white space, in ASCII lower case. (DSIR's are NLTK's, with punctuation as words and Python's lower
case, RedPajama-v2's have neither.) The hash of a word begins with `runs.SEED` and takes each run of
ASCII letters, 8 at a time, and each other character; that of a pair takes the second word's into
the first's. r is rounded to 1 / `LOG_UNIT`, so that sums are of integers, in any order.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.quality.characters import UNICODE, traits
from pipelines.quality.runs import EVENTS, PIECE_BYTES, SEED, decode, find_events, hash_lower, step
from shards.errors import InputError, RecipeError
from shards.jit import kernel

VERSION = f"importance-v1 (Unicode {UNICODE})"
PREFIX = "importance_"
BUCKETS = 10_000
LOG_UNIT = 1 << 24

_SMOOTHING = 1e-8
_MAGIC = b"assay importance 1\n"
_BUCKETS = np.uint64(BUCKETS)
_CHARACTER = np.uint64(1 << 63)
"""Tells a character's value from that of a run of ASCII letters: their bytes are below 128."""
_TRAITS = traits()

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@kernel("void(uint8[::1], int64[::1], uint8[::1], int64[::1], int64[::1], int64[::1])")
def _walk(
    data: UInt8, offsets: Int64, traits: UInt8, ratios: Int64, times: Int64, sums: Int64
) -> None:
    """Add to `times[BUCKETS]` what occurs, and fill `sums[n]` with the documents' ratios."""
    events = np.empty(PIECE_BYTES + 1, np.int64)
    for i in range(offsets.shape[0] - 1):
        end = offsets[i + 1]
        total = 0
        in_word = has_before = False
        hashed = word = before = SEED
        at = piece = offsets[i]
        while piece <= end:
            piece_end = min(piece + PIECE_BYTES, end)
            for k in range(find_events(data, piece, piece_end, end, events, EVENTS)):
                event = events[k]
                if event > at:  # ASCII letters stand before it
                    if not in_word:
                        in_word = True
                        hashed = SEED
                    hashed, _ = hash_lower(data, at, event, hashed)
                    word = hashed
                # The end closes the last word.
                point, at = decode(data, event, end)
                trait = traits[point] if point < traits.shape[0] else 0
                if not trait & 1:
                    is_named = trait & 10  # a letter or a digit
                    if is_named and not in_word:
                        in_word = True
                        hashed = SEED
                    if in_word:
                        hashed = step(hashed, np.uint64(point) | _CHARACTER)
                        if is_named:
                            word = hashed
                elif in_word:
                    in_word = False
                    bucket = np.int64(word % _BUCKETS)
                    times[bucket] += 1
                    total += ratios[bucket]
                    if has_before:
                        bucket = np.int64(step(before, word) % _BUCKETS)
                        times[bucket] += 1
                        total += ratios[bucket]
                    before = word
                    has_before = True
            piece = piece_end if piece_end < end else end + 1
        sums[i] = total


def count(texts: Iterable[bytes]) -> Int64:
    """Return how often each bucket occurs in texts (UTF-8, held one at a time), int64 (BUCKETS)."""
    times, ratios, sums = (np.zeros(n, np.int64) for n in (BUCKETS, BUCKETS, 1))
    for text in texts:
        # A copy, for what is not to be written to has another type.
        data = np.frombuffer(text, np.uint8).copy()
        _walk(data, np.array([0, len(text)], np.int64), _TRAITS, ratios, times, sums)
    return times


def train(target: Int64, base: Int64) -> Int64:
    """Return r of each bucket, int64 (BUCKETS) in units of 1 / LOG_UNIT nat.

    Args:
        target, base: int64 (BUCKETS), what `count` says of either.

    Raises:
        InputError: one has no words.
    """
    for name, times in (("paths", target), ("base_paths", base)):
        if not times.any():
            raise InputError(f"{name}: the documents have no words")
    logs = [np.log(times / times.sum() + _SMOOTHING) for times in (target, base)]
    ratios: Int64 = np.rint((logs[0] - logs[1]) * LOG_UNIT).astype(np.int64)
    return ratios


def weights(ratios: Int64, data: UInt8, offsets: Int64) -> npt.NDArray[np.float32]:
    """Return the log importance weight of each document in nats, float32 (n); 0 without words.

    Args:
        ratios: what `train` returned.
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
    """
    sums = np.empty(len(offsets) - 1, np.int64)
    _walk(data, offsets, _TRAITS, ratios, np.zeros(BUCKETS, np.int64), sums)
    return (sums / LOG_UNIT).astype(np.float32)


def encode(ratios: Int64) -> bytes:
    """Return the bytes of a model: equal models have equal bytes."""
    return _MAGIC + ratios.astype("<i8").tobytes()


def decode_model(data: bytes) -> Int64:
    """Return the model of `encode`'s bytes.

    Raises:
        InputError: they are not.
    """
    if not data.startswith(_MAGIC) or len(data) != len(_MAGIC) + 8 * BUCKETS:
        raise InputError("not a model of importance weights")
    return np.frombuffer(data, "<i8", offset=len(_MAGIC)).astype(np.int64)


def signals(names: Iterable[str]) -> dict[str, tuple[pa.DataType, str]]:
    """Return column → type and meaning, in the order of names."""
    meaning = "log p(text) under the target less that under the base, in nats"
    return {f"{PREFIX}{name}": (pa.float32(), meaning) for name in sorted(names)}


def compute(
    models: Mapping[str, tuple[str, str]], data: UInt8, offsets: Int64
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `signals`, float32 (n).

    Args:
        models: name → path and hash of a saved model.
        data, offsets: as for `weights`.

    Raises:
        RecipeError: a file has another hash.
    """
    return {
        f"{PREFIX}{name}": weights(_load(*models[name]), data, offsets) for name in sorted(models)
    }


@cache
def _load(path: str, digest: str) -> Int64:
    from pipelines import files  # it brings Beam, which most processes do not need

    data = files.read_bytes(path)
    if xxhash.xxh3_128_hexdigest(data) != digest:
        raise RecipeError(f"{path}: the model was changed while the job ran; run again")
    return decode_model(data)
