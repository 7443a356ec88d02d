"""A tokens dataset on disk, and views of it: the documents that a selection keeps.

Shards are mapped, not read. Each MiB block is hashed once, when it is first touched, and compared
with the manifest: later touches cost one look at a byte map. (With one flipped bit, other readers
of this kind of file return wrong tokens without an error.)
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from shards.cache import BlockCache, CacheOptions
from shards.errors import CorruptError, DatasetError, PlatformError, RecipeError
from shards.gather import FULL, gather, gather_packed, gather_samples
from shards.hashing import BLOCK_BYTES, xxh128
from shards.manifest import Manifest, ShardEntry, check_files, made_as, read_manifest, remedy
from shards.order import windowed_order
from shards.remote import Remote, is_remote
from shards.select import select
from shards.tokens import TokenMetadata, TokenShard, open_token_shard, token_dtype
from shards.window import NO_WINDOW, Window

Int64 = npt.NDArray[np.int64]

_TRIES = 100
"""How often blocks of one row may leave the cache again before all of them are there."""


class TokenDocument(NamedTuple):
    """One document of a view; `tokens` (uint16 or uint32, EOS last) is a view of the mapped file.

    `bytes` counts the raw UTF-8 bytes of its text, the denominator of bits per byte.
    """

    doc_id: bytes
    tokens: npt.NDArray[np.unsignedinteger[Any]]
    bytes: int


class Span(NamedTuple):
    """`length` tokens of one document, from its token `start`."""

    doc_id: bytes
    start: int
    length: int


Gathered = tuple[Int64, bool]
"""What was copied: int64[B], tokens of each row that are no padding; whether none is padded."""


class TokenDataset:
    """A tokens dataset; open it with `TokenDataset.open(folder)`.

    `location` is where it is, a folder or a URL; `folder` is where its blocks are, for a URL in
    the cache.

    With a bounded cache, blocks go as others come: then `guard` must be held while the mapped
    stream is read, and what `tokens` returns is a copy.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        metadata: TokenMetadata,
        remote: tuple[Remote, CacheOptions] | None = None,
    ) -> None:
        self.folder = folder
        self.location = remote[0].url if remote else str(folder)
        self.manifest = manifest
        self.metadata = metadata
        self.entries: list[ShardEntry] = manifest.content.shards.get("tokens", [])
        blocks = [len(entry.blocks) for entry in self.entries]
        self._shards: dict[int, TokenShard] = {}
        # Address and file position of each shard's stream (once it is open), its first block.
        self._places = np.zeros((len(blocks), 3), np.int64)
        self._places[:, 2] = np.cumsum([0, *blocks])[:-1]
        self._verified = np.zeros(sum(blocks), np.uint8)
        self.cache: BlockCache | None = None
        self.guard: AbstractContextManager[Any] = nullcontext()
        if remote:
            source, options = remote
            self.cache = BlockCache(
                self.entries, source.fetch, folder, options, self._places[:, 2], self._verified
            )
            self.guard = self.cache.lock

    @classmethod
    def open(cls, folder: str | Path, cache: CacheOptions | None = None) -> "TokenDataset":
        """Read the manifest and check that all shards are there with the right sizes.

        Args:
            folder: of the dataset, or its URL (anything that fsspec knows: s3://, gs://, https://).
            cache: for a URL, where blocks that were read are kept.

        Raises:
            DatasetError: not a finished tokens dataset, or a shard is missing.
            CorruptError: a shard has another size than the manifest says.
            RecipeError: a URL without a cache.
            PlatformError: a remote dataset cannot be reached, or the cache cannot be written to.
        """
        if is_remote(folder):
            return cls._open_remote(str(folder), cache)
        root = Path(folder)
        manifest = read_manifest(root)
        if manifest.content.kind != "tokens":
            raise DatasetError(
                f"{root}: holds {manifest.content.kind}, not tokens; run assay tokenize on it first"
            )
        dataset = cls(root, manifest, _tokenizer(root, manifest))
        check_files(root, manifest)
        return dataset

    @classmethod
    def _open_remote(cls, url: str, cache: CacheOptions | None) -> "TokenDataset":
        if cache is None:
            raise RecipeError(
                f"{url}: a remote dataset needs a folder for the blocks that were read; give one"
                " (--cache FOLDER)"
            )
        source = Remote(url, attempts=cache.attempts, backoff_seconds=cache.backoff_seconds)
        manifest = source.manifest()
        if manifest.content.kind != "tokens":
            raise DatasetError(f"{url}: holds {manifest.content.kind}, not tokens")
        metadata = _tokenizer(Path(url), manifest)
        return cls(cache.folder / manifest.dataset_id, manifest, metadata, (source, cache))

    def close(self) -> None:
        """End the threads that fetch blocks; nothing to do for a local dataset."""
        if self.cache:
            self.cache.close()

    @property
    def dataset_id(self) -> str:
        """The id of the dataset: a hash of its content."""
        return self.manifest.dataset_id

    @property
    def sources(self) -> list[str]:
        """Source names, sorted: the column `source_id` indexes this list."""
        return sorted(self.manifest.content.sources)

    @property
    def vocab_size(self) -> int:
        """Number of token ids; all ids are below it."""
        return self.metadata.vocab_size

    @property
    def eos_id(self) -> int:
        """The token that ends every document."""
        return self.metadata.eos_id

    def shard(self, index: int) -> TokenShard:
        """Return shard `index`, mapped and with all its columns verified but the token stream.

        Raises:
            CorruptError: a block does not match its hash, or the shard does not fit the manifest.
        """
        if index not in self._shards:
            entry = self.entries[index]
            shard = open_token_shard(
                self.cache.path(index) if self.cache else self.folder / entry.path,
                lambda start, end: self._touch(index, start, end, keep=True),
            )
            self._check_shard(entry, shard)
            self._places[index, :2] = shard.address, shard.tokens_at
            self._shards[index] = shard
        return self._shards[index]

    def tokens(self, index: int, start: int, length: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return `length` tokens of shard `index` from `start`: a verified view of the file."""
        shard = self.shard(index)
        if self.cache is None or self.cache.max_blocks is None:
            self.touch_tokens(index, start, length)
            return shard.tokens[start : start + length]
        base, blocks = int(self._places[index, 2]), self.token_blocks(index, start, length)
        for _ in range(_TRIES):
            self.touch_tokens(index, start, length)
            with self.guard:  # blocks may have gone again meanwhile
                if self._verified[base + blocks.start : base + blocks.stop].all():
                    return shard.tokens[start : start + length].copy()
        raise self.too_small()

    def token_blocks(self, index: int, start: int, length: int) -> range:
        """Return the blocks of an open shard's file that hold some of its tokens."""
        stream_at, size = int(self._places[index, 1]), token_dtype(self.vocab_size).itemsize
        first, end = stream_at + start * size, stream_at + (start + length) * size
        return range(
            first // BLOCK_BYTES, -(-end // BLOCK_BYTES) if length else first // BLOCK_BYTES
        )

    def touch_tokens(self, index: int, start: int, length: int) -> None:
        """Check the blocks that hold some tokens of a shard, each block once."""
        self.shard(index)
        stream_at, size = int(self._places[index, 1]), token_dtype(self.vocab_size).itemsize
        self._touch(index, stream_at + start * size, stream_at + (start + length) * size)

    def too_small(self) -> PlatformError:
        """Return the error for a cache in which blocks go before they can be read together."""
        return PlatformError(
            f"{self.folder}: the blocks of one row do not fit into the cache together; make its"
            " max_bytes larger"
        )

    def select(self, expression: str = "True") -> "TokenView":
        """Return the view of the documents for which `expression` holds.

        Raises:
            RecipeError: the expression cannot be evaluated on this dataset's columns.
            CorruptError: a shard's columns do not match their hashes.
        """
        if self.cache:
            for index, entry in enumerate(self.entries):  # where each shard's metadata is
                self.cache.request(index, [0, len(entry.blocks) - 1])
        masks = {index: self.mask(index, expression) for index in range(len(self.entries))}
        return view_of(self, expression, masks)

    def mask(self, index: int, expression: str) -> npt.NDArray[np.bool_]:
        """Return for which documents of shard `index` the expression holds, bool[n].

        `source` in it is a name: see `shards.select`.

        Raises:
            RecipeError: the expression cannot be evaluated on this dataset's columns and sources.
            CorruptError: the shard's columns do not match their hashes.
        """
        return select(self.shard(index).batch, expression, self.sources)

    def _touch(self, index: int, start: int, end: int, keep: bool = False) -> None:
        """Check the blocks that hold bytes [start, end) of a shard's file, each block once.

        `keep` marks what must stay in the cache.
        """
        base, entry = int(self._places[index, 2]), self.entries[index]
        low, high = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if start >= end:
            return
        if self.cache:
            if keep:
                self.cache.keep(index, range(low, high))
            if not self._verified[base + low : base + high].all():
                self.cache.load(index, range(low, high))
            return
        if self._verified[base + low : base + high].all():
            return
        # Through read(), not through the mapping: a failing disk gives an OSError here, there a
        # SIGBUS that ends the process. Both see the same pages.
        with (self.folder / entry.path).open("rb") as file:
            for block in range(low, high):
                if self._verified[base + block]:
                    continue
                file.seek(block * BLOCK_BYTES)
                found = xxh128(file.read(BLOCK_BYTES)).hex()
                if found != entry.blocks[block]:
                    raise CorruptError(
                        f"{self.folder / entry.path}: block {block} (bytes from"
                        f" {block * BLOCK_BYTES}): expected xxh3-128 {entry.blocks[block]}, found"
                        f" {found}; {remedy(made_as(self.manifest.content))}"
                    )
                self._verified[base + block] = 1

    def _check_shard(self, entry: ShardEntry, shard: TokenShard) -> None:
        found = (shard.batch.num_rows, len(shard.tokens), shard.metadata)
        expected = (entry.documents, entry.tokens, self.metadata)
        if found != expected:
            raise CorruptError(
                f"{shard.path}: (documents, tokens, tokenizer) {found}, but the manifest says"
                f" {expected}"
            )


class TokenView:
    """The token stream of the documents that a selection keeps, in dataset order.

    Attributes:
        dataset, expression: what was selected from, and how.
        documents: number of documents.
        tokens: number of tokens, EOS included.
        bytes: raw UTF-8 bytes of the documents' texts.
        selection_hash: 32 hex digits that identify the selected ranges: two expressions that keep
            the same documents have the same hash.
        draw: "all" where the view has all that `expression` selects, each document once; else in
            words what of it.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        expression: str,
        segments: Int64,
        documents: int,
        size: int,
        draw: str = "all",
    ) -> None:
        """Take `segments: int64[G, 5]`: shard, first row, rows, first token, tokens."""
        self.dataset = dataset
        self.expression = expression
        self.draw = draw
        self.documents = documents
        self.bytes = size
        self._shard, self._row, self._rows, self._start, lengths = np.ascontiguousarray(segments.T)
        self._cumulative = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._segments = np.stack([self._shard, self._start], axis=1)
        self.tokens = int(self._cumulative[-1])
        self.selection_hash = xxh128(np.ascontiguousarray(segments, "<i8").tobytes()).hex()
        itemsize = token_dtype(dataset.vocab_size).itemsize
        verified = dataset._verified
        self._kernel = (dataset._places, itemsize, verified, self._segments, self._cumulative)

    @property
    def segments(self) -> Int64:
        """int64[G, 5]: shard, first row, rows, first token and tokens of each run of documents."""
        lengths = np.diff(self._cumulative)
        return np.stack([self._shard, self._row, self._rows, self._start, lengths], axis=1)

    def gather(self, start: int, length: int, out: Int64) -> Int64:
        """Copy tokens [start, start + length) of the stream into `out: int64[>= length]`.

        Returns:
            `out[:length]`.

        Raises:
            IndexError: the range leaves the stream.
            CorruptError: a touched block does not match its hash.
        """
        self.gather_rows(np.array([start]), np.array([length]), out[np.newaxis, :])
        return out[:length]

    def tokens_at(self, start: int, length: int) -> Int64:
        """Return tokens [start, start + length) of the stream, int64[length], as `gather` does."""
        return self.gather(start, length, np.empty(length, np.int64))

    def gather_rows(self, starts: Int64, lengths: Int64, out: Int64) -> None:
        """Copy B ranges of the stream into the rows of `out: int64[B, >= max(lengths)]`.

        Raises:
            IndexError: a range leaves the stream or does not fit into `out`.
            CorruptError: a touched block does not match its hash.
        """
        outside = (starts < 0) | (lengths < 0) | (starts + lengths > self.tokens)
        if outside.any():
            row = int(np.argmax(outside))
            raise IndexError(
                f"tokens [{starts[row]}, {starts[row] + lengths[row]}) are not all in a view of"
                f" {self.tokens} tokens"
            )
        if len(lengths) > len(out) or (len(lengths) and lengths.max() > out.shape[1]):
            raise IndexError(f"{len(lengths)} rows do not fit into an array of shape {out.shape}")
        row = tries = 0
        while True:
            with self.dataset.guard:
                row = gather(*self._kernel, starts, lengths, row, out)
            if row < 0:
                return
            tries = self._count(tries, row)
            self._verify(int(starts[row]), int(lengths[row]))

    def gather_samples(
        self, indices: Int64, samples: int, seed: int, out: Int64, window: Window = NO_WINDOW
    ) -> Gathered:
        """Copy samples of T tokens and the one after each into the rows of `out: int64[B, T + 1]`.

        Args:
            indices: int64[B], global sample indices; `shards.order` says which samples they are.
            samples: samples of an epoch, ceil((tokens - 1) / T).
            seed: of the order.
            out: filled up with EOS in the row of the last sample, which may be short.
            window: of the order.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        T = out.shape[1] - 1
        lengths = np.empty(len(indices), np.int64)
        chunk, chunks = window
        eos = self.dataset.metadata.eos_id
        row = tries = 0
        while True:
            with self.dataset.guard:
                row = gather_samples(
                    *self._kernel, indices, samples, seed, chunk, chunks, T, eos, lengths, row, out
                )
            if row < 0:
                return lengths, row == FULL
            tries = self._count(tries, row)
            place = windowed_order(indices[row : row + 1], samples, seed, chunk, chunks)
            self._verify(int(place[0]) * T, int(lengths[row]))

    def places(self, indices: Int64, samples: int, seed: int, window: Window = NO_WINDOW) -> Int64:
        """Return which samples of the stream, int64[B], the global indices int64[B] read.

        Args: as for `gather_samples`, which reads the same ones.
        """
        return windowed_order(indices, samples, seed, *window)

    def gather_packed(
        self, packed: Int64, first_piece: Int64, starts: Int64, sizes: Int64, out: Int64
    ) -> Gathered:
        """Copy packed rows into the rows of `out: int64[B, >= longest]`, filled up with EOS.

        Args:
            packed: int64[B], which rows of a plan.
            first_piece, starts, sizes: the plan: row r has the pieces first_piece[r] to
                first_piece[r + 1], each `sizes` tokens of the stream from `starts`.
            out: where they go.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        lengths = np.empty(len(packed), np.int64)
        plan, eos = (first_piece, starts, sizes), self.dataset.eos_id
        row = tries = 0
        while True:
            with self.dataset.guard:
                row = gather_packed(*self._kernel, packed, *plan, eos, row, lengths, out)
            if row < 0:
                return lengths, row == FULL
            tries = self._count(tries, row)
            first, end = first_piece[packed[row]], first_piece[packed[row] + 1]
            for start, size in zip(starts[first:end], sizes[first:end], strict=True):
                self._verify(int(start), int(size))

    def narrow(self, expression: str) -> "TokenView":
        """Return the view of those documents of this one for which `expression` holds.

        Raises:
            RecipeError: the expression cannot be evaluated on the dataset's columns.
        """
        masks = {}
        for index in np.unique(self._shard).tolist():
            batch = self.dataset.shard(index).batch
            masks[index] = np.zeros(batch.num_rows, np.bool_)
        for index, first, rows in zip(self._shard, self._row, self._rows, strict=True):
            masks[int(index)][first : first + rows] = True
        for index in masks:
            masks[index] &= self.dataset.mask(index, expression)
        return view_of(self.dataset, f"({self.expression}) and ({expression})", masks)

    @property
    def is_remote(self) -> bool:
        """Tell whether some blocks may have to come from afar."""
        return self.dataset.cache is not None and not self.dataset.cache.is_full

    def request(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Let the blocks of some ranges, (start, length), of the stream come into the cache.

        Does not wait.
        """
        cache = self.dataset.cache
        if cache is None:
            return
        for start, length in ranges:
            for shard, _, first, count in self._ranges(start, length):
                self.dataset.shard(shard)
                cache.request(shard, self.dataset.token_blocks(shard, first, count))

    def __iter__(self) -> Iterator[TokenDocument]:
        """Yield the documents in order, their tokens verified.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        for index, first, rows in zip(self._shard, self._row, self._rows, strict=True):
            shard = self.dataset.shard(int(index))
            ids, sizes = shard.batch.column("doc_id"), np.asarray(shard.batch.column("bytes"))
            for row in range(int(first), int(first + rows)):
                start, end = int(shard.offsets[row]), int(shard.offsets[row + 1])
                tokens = self.dataset.tokens(int(index), start, end - start)
                yield TokenDocument(ids[row].as_py(), tokens, int(sizes[row]))

    def document_offsets(self) -> Int64:
        """Return int64[documents + 1]: where in the view's stream each document starts and ends.

        Raises:
            CorruptError: a shard's columns do not match their hashes.
        """
        lengths = [np.zeros(0, np.int64)]
        for index, first, rows in zip(self._shard, self._row, self._rows, strict=True):
            offsets = self.dataset.shard(int(index)).offsets
            lengths.append(np.diff(offsets[first : first + rows + 1]))
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])

    def locate(self, start: int, length: int) -> list[Span]:
        """Return which documents the tokens [start, start + length) of the stream come from."""
        spans: list[Span] = []
        for index, _, first, count in self._ranges(start, length):
            shard = self.dataset.shard(index)
            position = first
            while position < first + count:
                row = int(np.searchsorted(shard.offsets, position, side="right")) - 1
                end = min(int(shard.offsets[row + 1]), first + count)
                doc_id = shard.batch.column("doc_id")[row].as_py()
                spans.append(Span(doc_id, position - int(shard.offsets[row]), end - position))
                position = end
        return spans

    def _verify(self, start: int, length: int) -> None:
        """Check the blocks that hold a range of the stream."""
        for shard, _, first, count in self._ranges(start, length):
            self.dataset.touch_tokens(shard, first, count)

    def _count(self, tries: int, rows_done: int) -> int:
        """Count calls of a kernel: with blocks going as they come, a row could be tried forever."""
        if tries - rows_done > _TRIES:
            raise self.dataset.too_small()
        return tries + 1

    def _ranges(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a range of the stream at segment borders: (shard, segment, first token, count)."""
        segment = int(np.searchsorted(self._cumulative, start, side="right")) - 1
        end = start + length
        while start < end:
            stop = min(end, int(self._cumulative[segment + 1]))
            if stop > start:
                offset = start - int(self._cumulative[segment])
                first = int(self._start[segment]) + offset
                yield int(self._shard[segment]), segment, first, stop - start
            start, segment = max(start, stop), segment + 1


def view_of(
    dataset: TokenDataset, expression: str, masks: Mapping[int, npt.NDArray[np.bool_]]
) -> TokenView:
    """Return the view of chosen documents: `masks`, bool[rows] of some shards, rising numbers."""
    parts: list[Int64] = [np.zeros((0, 5), np.int64)]
    documents = size = 0
    for index, chosen in masks.items():
        shard = dataset.shard(index)
        documents += int(np.count_nonzero(chosen))
        size += int(np.asarray(shard.batch.column("bytes"))[chosen].sum())
        parts.append(segments_of(index, chosen, shard.offsets))
    return TokenView(dataset, expression, np.concatenate(parts), documents, size)


def segments_of(index: int, chosen: npt.NDArray[np.bool_], offsets: Int64) -> Int64:
    """Merge runs of chosen rows: int64[G, 5] of shard, first row, rows, first token, tokens."""
    edges = np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))
    first, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    start = offsets[first]
    return np.stack(
        [np.full(len(first), index), first, end - first, start, offsets[end] - start], axis=1
    ).astype(np.int64)


def _tokenizer(root: Path, manifest: Manifest) -> TokenMetadata:
    """Read the tokenizer's facts out of the manifest (`sha256`, `vocab_size`, `eos_id`)."""
    facts = manifest.content.tokenizer or {}
    try:
        return msgspec.convert(
            {
                "tokenizer_sha256": facts.get("sha256"),
                "vocab_size": facts.get("vocab_size"),
                "eos_id": facts.get("eos_id"),
            },
            TokenMetadata,
        )
    except msgspec.ValidationError as error:
        raise DatasetError(
            f"{root}: the manifest's tokenizer must state sha256, vocab_size and eos_id: {error}"
        ) from None
