"""Documents as flat arrays, for what looks at whole documents: validation and baselines."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.batches import open_batches, open_sources
from shards.cache import CacheOptions
from shards.dataset import TokenDataset, TokenView
from shards.errors import RecipeError, TrainingError
from shards.hashing import xxh128
from shards.remote import is_remote
from trainer.config import TrainConfig

ZSTD_COLUMN = "zstd_bpb"

_PIECE = 1 << 20
"""Tokens that are read at a time: all their blocks must be in a remote dataset's cache at once."""


@dataclass(frozen=True)
class Documents:
    """Documents of one selection, in the dataset's order.

    tokens: uint16[t] or uint32[t], every document ending with EOS.
    offsets: int64[n + 1]; document i is `tokens[offsets[i]:offsets[i + 1]]`.
    bytes: int64[n], raw UTF-8 bytes of each.
    source: int64[n], index into `sources`.
    eos: the token that ends a document.
    zstd_bits: float64[n], compressed bits by the dataset's `zstd_bpb` signal, if it has one.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    offsets: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    sources: tuple[str, ...]
    eos: int
    zstd_bits: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.bytes)

    def digest(self) -> str:
        """Return a hash of the documents' tokens, lengths, bytes and sources (32 hex digits)."""
        parts = (self.tokens, self.offsets, self.bytes, self.source)
        return xxh128(
            b"".join(xxh128(np.ascontiguousarray(part).data.cast("B")) for part in parts)
        ).hex()

    def head(self, max_tokens: int) -> "Documents":
        """Return the documents, in order, that fit into `max_tokens` tokens; at least one.

        The order is the dataset's, by content hash, so that it knows nothing of source or length.
        """
        left, rows = max_tokens, []
        for row, length in enumerate(np.diff(self.offsets).tolist()):
            if length <= left:
                rows.append(row)
                left -= length
        chosen = np.array(rows or [int(np.argmin(np.diff(self.offsets)))], np.int64)
        lengths = np.diff(self.offsets)[chosen]
        mask = np.zeros(len(self), np.bool_)
        mask[chosen] = True
        return Documents(
            tokens=self.tokens[np.repeat(mask, np.diff(self.offsets))],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            bytes=self.bytes[chosen],
            source=self.source[chosen],
            sources=self.sources,
            eos=self.eos,
            zstd_bits=None if self.zstd_bits is None else self.zstd_bits[chosen],
        )

    def previous(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the token before each token; EOS before the first of a document."""
        previous = np.roll(self.tokens, 1)
        previous[self.offsets[:-1]] = self.eos
        return previous


_CACHED = re.compile(r"[0-9a-f]{32}|rank-\d+|\..*|lost\+found")
"""What a cache may hold: folders named by a dataset's id or a rank, and what systems leave."""


def open_tokens(place: str, cache: Path | None = None, cache_mb: int | None = None) -> TokenDataset:
    """Open a tokens dataset in a folder, or at a URL through a cache of at most `cache_mb` MiB.

    A bounded cache is for one process, so each rank of several has its own folder in `cache`.

    Raises:
        RecipeError: a cache for a folder, a URL without one, a cache in a folder of other things.
        DatasetError, CorruptError, PlatformError: as `TokenDataset.open`.
    """
    if not is_remote(place):
        if cache is not None or cache_mb is not None:
            raise RecipeError(f"--cache: {place} is a folder here, which needs none; leave it out")
        return TokenDataset.open(place)
    if cache is None:
        raise RecipeError(f"{place}: say with --cache FOLDER where blocks that were read are kept")
    _check_cache_folder(cache)
    if cache_mb is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        cache /= f"rank-{os.environ.get('RANK', '0')}"
    return TokenDataset.open(place, CacheOptions(cache, cache_mb and cache_mb << 20))


def _check_cache_folder(cache: Path) -> None:
    """Refuse a cache in a folder with other things, such as the shards of a dataset.

    Raises:
        RecipeError: it holds what is neither a dataset's blocks nor a rank's.
    """
    if not cache.is_dir():
        return
    for path in sorted(cache.iterdir()):
        if not _CACHED.fullmatch(path.name):
            raise RecipeError(
                f"--cache {cache}: is not empty and not a cache: it holds {path.name}; give a new"
                " folder"
            )


def reading_lines(view: TokenView, config: TrainConfig) -> list[str]:
    """Say of a run what its packing and its mixture make of the data, for `--dry-run`.

    Raises:
        RecipeError: they cannot be, with this data.
    """
    samples = config.total_steps * config.batch_size
    loader = open_batches(view, config, config.seed, samples=samples)
    if config.mixture is None:
        cuts = "" if config.packing == "none" else f", packed ({config.packing})"
        return [f"{loader.first_pass:,} samples an epoch{cuts}, {samples:,} to read"]
    views = open_sources(view, config.mixture)
    return [
        f"source {name}: {source.documents:,} documents, {source.tokens:,} tokens"
        for name, source in sorted(views.items())
    ]


def read_documents(
    dataset: TokenDataset, expression: str, max_tokens: int | None = None
) -> Documents:
    """Copy the selected documents into memory, verified.

    With `max_tokens`, documents are taken in the order of their ids, which are hashes and so know
    nothing of source or length, as long as they fit; the result is in the dataset's order.

    Raises:
        TrainingError: no document is left.
        RecipeError: the expression cannot be evaluated on the dataset's columns.
        CorruptError: a block does not match its hash.
    """
    chosen = [dataset.mask(index, expression) for index in range(len(dataset.entries))]
    if max_tokens is not None:
        chosen = _limit(dataset, chosen, max_tokens)
    if not any(mask.any() for mask in chosen):
        raise TrainingError(
            f"{dataset.folder}: selection {expression!r} has no document"
            + ("" if max_tokens is None else f" within {max_tokens} tokens (train.eval_tokens)")
            + "; for a validation split, curate with split.valid_fraction above 0"
        )
    tokens, lengths, sizes, sources, zstd = [], [], [], [], []
    for index, mask in enumerate(chosen):
        shard = dataset.shard(index)
        counts = np.diff(shard.offsets)
        tokens += _chosen_tokens(dataset, index, mask)
        lengths.append(counts[mask])
        sizes.append(np.asarray(shard.batch.column("bytes"))[mask])
        sources.append(np.asarray(shard.batch.column("source_id"))[mask])
        if ZSTD_COLUMN in shard.batch.schema.names:
            column = shard.batch.column(ZSTD_COLUMN).to_numpy(zero_copy_only=False)
            zstd.append(column[mask].astype(np.float64))
    raw = np.concatenate(sizes).astype(np.int64)
    bpb = np.concatenate(zstd) if zstd else None
    return Documents(
        tokens=np.concatenate(tokens),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
        bytes=raw,
        source=np.concatenate(sources).astype(np.int64),
        sources=tuple(dataset.sources),
        eos=dataset.eos_id,
        zstd_bits=None if bpb is None or np.isnan(bpb).any() else bpb * raw,
    )


def _chosen_tokens(
    dataset: TokenDataset, index: int, mask: npt.NDArray[np.bool_]
) -> list[npt.NDArray[np.unsignedinteger[Any]]]:
    """Return the tokens of the chosen documents of a shard; only their blocks are touched."""
    offsets = dataset.shard(index).offsets
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    pieces = [dataset.tokens(index, 0, 0)]
    for first, end in edges.reshape(-1, 2).tolist():
        for start in range(int(offsets[first]), int(offsets[end]), _PIECE):
            pieces.append(dataset.tokens(index, start, min(_PIECE, int(offsets[end]) - start)))
    return pieces


def overlap(dataset: TokenDataset, first: str, second: str) -> int:
    """Return how many documents two selections share (0 for an arm and its validation)."""
    return dataset.select(first).narrow(second).documents  # so that an error shows one of the two


def _limit(
    dataset: TokenDataset, chosen: list[npt.NDArray[np.bool_]], max_tokens: int
) -> list[npt.NDArray[np.bool_]]:
    """Keep, in the order of document ids, each chosen document that still fits into the limit."""
    candidates = sorted(
        (dataset.shard(index).batch.column("doc_id")[int(row)].as_py(), index, int(row))
        for index, mask in enumerate(chosen)
        for row in np.flatnonzero(mask)
    )
    kept = [np.zeros_like(mask) for mask in chosen]
    left = max_tokens
    for _, index, row in candidates:
        offsets = dataset.shard(index).offsets
        length = int(offsets[row + 1] - offsets[row])
        if length <= left:
            kept[index][row] = True
            left -= length
    return kept
