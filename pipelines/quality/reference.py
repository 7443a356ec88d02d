"""Measures against a reference: what good text, and a corpus, say about a document.

A *reference* is documents that somebody vouches for; the *base* is what they are to be told from,
normally a sample of the corpus itself. Both are pinned: they are trained into one value, whose hash
goes into the recipe's.

* `ref_bpb`: bits per byte under the n-gram model of the reference (`ngram.py`);
* `ref_delta` = target - base: `ref_bpb` less bits per byte under the model of the base, the
  cross-entropy difference of Moore and Lewis (2010, "Intelligent selection of language model
  training data"), over bytes instead of words;
* `zstd_dict_bpb`: bits per byte under zstd with a dictionary of the reference;
* `zstd_z`, `ref_z`, `delta_z`: `zstd_bpb`, `ref_bpb` and `ref_delta` against their length curves;
* `common_share`: the share of the text that stands in many documents of the base (`windows.py`);
* `marginal_bpb`: bits per byte given a long window of the base (`marginal.py`);
* `junk_score` = ¼·f(abs(zstd_z)) + f(ref_z) + ½·f(delta_z) + 2·common_share, one number of all,
with f(z) = ln(1 + max(z, 0)): far beyond a curve says little more than beyond it. `zstd_z` counts
on both sides, because repeats compress too well and noise too badly; a document that the reference
predicts too well is none the worse. The weights were chosen by `benchmarks/quality_weights.py` on
documents of the development corpus that are not in the data-efficiency pool, which was to judge
them (`benchmarks/auc.py`).

The curves are fitted on documents of sources that the model has not seen: the reference's sources
go into `FOLDS` groups, and each group is measured by a model of the others. So the spread is that
of good text from elsewhere, not that of more pages of the same book.
"""

import heapq
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.quality import compression, lengths, marginal, ngram, windows
from pipelines.quality.lengths import Curve
from pipelines.quality.ngram import NgramModel
from shards.errors import InputError

VERSION = "reference-v2"
FOLDS = 4
ZSTD_WEIGHT, DELTA_WEIGHT, COMMON_WEIGHT = 0.25, 0.5, 2.0
"""Of the terms of `junk_score`; that of `ref_z` is 1."""
NGRAM_BYTES = 16 << 20
"""The n-gram models learn from about so many bytes: more takes memory and leaves the cache."""

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

SIGNALS: dict[str, tuple[pa.DataType, str]] = {
    "ref_bpb": (pa.float32(), "bits per byte under the n-gram model of the reference"),
    "ref_delta": (pa.float32(), "ref_bpb less bits per byte under the model of the base"),
    "zstd_dict_bpb": (pa.float32(), "bits per byte under zstd given text of the reference"),
    "zstd_z": (pa.float32(), "zstd_bpb against the reference's length curve, in its spreads"),
    "ref_z": (pa.float32(), "ref_bpb against the reference's length curve, in its spreads"),
    "delta_z": (pa.float32(), "ref_delta against the reference's length curve, in its spreads"),
    "common_share": (pa.float32(), "share of the text that stands in 10 documents of the base"),
    "marginal_bpb": (pa.float32(), "bits per byte given a window of 2 MiB of the base"),
    "junk_score": (pa.float32(), "how far from the reference, all measures together"),
}
"""Name → type and meaning, in the order of the columns."""


class Reference(NamedTuple):
    """What is trained from a reference and a base; `level` is zstd's.

    `masks` is the definition by which personal data was masked in both, empty where it was not.
    """

    target: NgramModel
    base: NgramModel
    common: npt.NDArray[np.uint64]
    dictionary: bytes
    level: int
    curves: dict[str, Curve]
    windows: marginal.Windows
    masks: str = ""


def definitions() -> dict[str, str]:
    """Return name → version of each definition here."""
    return {
        "reference": VERSION,
        "ngram": ngram.VERSION,
        "length_curve": lengths.VERSION,
        "common_windows": windows.VERSION,
        "marginal_bpb": marginal.VERSION,
    }


def train_reference(
    texts: Sequence[bytes],
    sources: Sequence[str],
    base: Sequence[bytes],
    level: int,
    masks: str = "",
) -> Reference:
    """Train on reference documents (UTF-8) of named sources, and on base documents.

    The order of documents does not matter; repeats do in the base, which is to be what the corpus
    is. Common windows are looked for in all of it, but what is learned from more than
    `NGRAM_BYTES` is the documents of smallest hash. About 2 s a
    MB of reference, and 60 bytes of memory a byte of what is learned. `masks` names the definition
    by which texts and base were masked.

    Raises:
        InputError: fewer than 16 reference documents of 64 bytes, or no base.
    """
    texts, sources = sample(zip(texts, sources, strict=True))
    base = sorted(filter(None, base), key=xxhash.xxh3_128_digest)
    if not base:
        raise InputError("the base of the reference has no documents")
    data, offsets = _flat(texts)
    base_model = ngram.train(*_flat(_head(base)))
    try:
        return Reference(
            ngram.train(data, offsets),
            base_model,
            windows.find_common(*_flat(base)),
            compression.zstd_dictionary(data, offsets, level),
            level,
            _curves(texts, folds(texts, sources), base_model, level),
            marginal.windows(base),
            masks,
        )
    except ValueError as error:
        raise InputError(
            f"the reference is too small: {len(texts)} documents, {len(data)} bytes: {error}; give"
            " it some hundred documents"
        ) from None


def folds(texts: Sequence[bytes], sources: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the fold of each document, int64 (n): sources whole, largest first, to the smallest.

    With fewer than `FOLDS` sources documents are dealt out one by one instead.
    """
    sizes: dict[str, int] = {}
    for text, source in zip(texts, sources, strict=True):
        sizes[source] = sizes.get(source, 0) + len(text)
    if len(sizes) < FOLDS:
        return np.arange(len(texts)) % FOLDS
    loads = [0] * FOLDS
    fold = {}
    for source in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fold[source] = loads.index(min(loads))
        loads[fold[source]] += sizes[source]
    return np.array([fold[source] for source in sources], np.int64)


def measure(
    reference: Reference, data: UInt8, offsets: Int64, zstd_bpb: Float32
) -> dict[str, Float32]:
    """Return the columns `SIGNALS`, each float32 (n); all are 0 for empty documents.

    Args:
        reference: what `train_reference` returned.
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        zstd_bpb: `compression.zstd_bpb` of the same documents at the reference's level.
    """
    sizes = np.diff(offsets)
    ref = ngram.bpb(reference.target, data, offsets)
    delta = ref - ngram.bpb(reference.base, data, offsets)
    zstd_z, ref_z, delta_z = (
        lengths.z_scores(reference.curves[name], sizes, values)
        for name, values in (("zstd_bpb", zstd_bpb), ("ref_bpb", ref), ("ref_delta", delta))
    )
    common = windows.common_share(reference.common, data, offsets)
    return {
        "ref_bpb": ref,
        "ref_delta": delta,
        "zstd_dict_bpb": compression.zstd_dictionary_bpb(
            data, offsets, reference.dictionary, reference.level
        ),
        "zstd_z": zstd_z,
        "ref_z": ref_z,
        "delta_z": delta_z,
        "common_share": common,
        "marginal_bpb": marginal.marginal_bpb(reference.windows, data, offsets),
        "junk_score": (
            ZSTD_WEIGHT * _damped(np.abs(zstd_z))
            + _damped(ref_z)
            + DELTA_WEIGHT * _damped(delta_z)
            + COMMON_WEIGHT * common
        ),
    }


def _damped(z: Float32) -> Float32:
    damped: Float32 = np.log1p(np.maximum(z, 0))
    return damped


def _curves(
    texts: Sequence[bytes], fold: npt.NDArray[np.int64], base: NgramModel, level: int
) -> dict[str, Curve]:
    """Fit the curves to prefixes measured by models of the other folds."""
    parts: dict[str, list[lengths.Pieces]] = {"zstd_bpb": [], "ref_bpb": [], "ref_delta": []}
    for k in range(FOLDS):
        inside = _flat([text for text, own in zip(texts, fold, strict=True) if own == k])
        outside = _flat([text for text, own in zip(texts, fold, strict=True) if own != k])
        model = ngram.train(*outside)
        sizes = lengths.pieces(partial(compression.zstd_bpb, level=level), *inside)
        target = lengths.pieces(partial(ngram.bpb, model), *inside)
        against = lengths.pieces(partial(ngram.bpb, base), *inside)
        parts["zstd_bpb"].append(sizes)
        parts["ref_bpb"].append(target)
        parts["ref_delta"].append({size: target[size] - against[size] for size in target})
    return {name: lengths.fit(found) for name, found in parts.items()}


def sample(
    documents: Iterable[tuple[bytes, str]], most_bytes: int = NGRAM_BYTES
) -> tuple[list[bytes], list[str]]:
    """Return what is learned from of documents and their sources: each once, in the hash's order.

    An equal document's source is the first by name. Of more than `most_bytes` it is the documents
    of smallest hash that have as many together, and no more than these are held in memory.
    """
    found: dict[int, tuple[bytes, str]] = {}
    largest: list[int] = []  # the hashes, negative: a heap
    held = 0
    for text, source in documents:
        key = xxhash.xxh3_128_intdigest(text)
        if key in found:
            found[key] = (text, min(source, found[key][1]))
        elif text:
            found[key] = (text, source)
            heapq.heappush(largest, -key)
            held += len(text)
            while held - len(found[-largest[0]][0]) >= most_bytes:
                held -= len(found.pop(-heapq.heappop(largest))[0])
    ordered = [found[key] for key in sorted(found)]
    return [text for text, _ in ordered], [source for _, source in ordered]


def _head(texts: list[bytes]) -> list[bytes]:
    """Return the first texts of `NGRAM_BYTES` together: a sample, where they are in hash order."""
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, NGRAM_BYTES)) + 1]


def _flat(texts: Sequence[bytes]) -> tuple[UInt8, Int64]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(bytearray().join(texts), np.uint8), offsets


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reference as plain data, arrays as their little-endian bytes.

    Without masks it has the bytes, and so the hash, that it had before there were any.
    """

    slots: tuple[bytes, bytes]
    starts: tuple[list[int], list[int]]
    documents: tuple[int, int]
    text_bytes: tuple[int, int]
    common: bytes
    dictionary: bytes
    level: int
    curves: dict[str, Curve]
    windows: marginal.Windows
    masks: str = ""


def encode(reference: Reference) -> bytes:
    """Return the bytes of a reference: equal references have equal bytes."""
    target, base = reference.target, reference.base
    stored = _Stored(
        slots=(target.slots.astype("<u8").tobytes(), base.slots.astype("<u8").tobytes()),
        starts=(target.starts.tolist(), base.starts.tolist()),
        documents=(target.documents, base.documents),
        text_bytes=(target.text_bytes, base.text_bytes),
        common=reference.common.astype("<u8").tobytes(),
        dictionary=reference.dictionary,
        level=reference.level,
        curves=reference.curves,
        windows=reference.windows,
        masks=reference.masks,
    )
    return msgspec.msgpack.encode(stored, order="sorted")


def decode(data: bytes) -> Reference:
    """Return the reference of `encode`'s bytes.

    Raises:
        InputError: they are not.
    """
    try:
        return _decode(msgspec.msgpack.decode(data, type=_Stored))
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"not a reference that `assay reference` saved: {error}") from None


def _decode(stored: _Stored) -> Reference:
    target, base = (
        NgramModel(_uint64(slots), np.array(starts, np.int64), documents, size)
        for slots, starts, documents, size in zip(
            stored.slots, stored.starts, stored.documents, stored.text_bytes, strict=True
        )
    )
    for model in (target, base):
        sizes = np.diff(model.starts)
        if len(sizes) != ngram.ORDER or sizes.min() < 1 or sizes.sum() != len(model.slots):
            raise ValueError("an n-gram model's tables and their sizes differ")
    return Reference(
        target,
        base,
        _uint64(stored.common),
        stored.dictionary,
        stored.level,
        stored.curves,
        stored.windows,
        stored.masks,
    )


def _uint64(data: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(data, "<u8").astype(np.uint64)
