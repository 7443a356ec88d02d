"""Packing: rows of whole documents instead of a stream that is cut every T tokens.

Best-fit-decreasing (Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024): take
documents from the longest to the shortest and put each into the row that has the least room left
for it. Only documents longer than a row are cut, into full rows and a rest. The price is a plan
that must be made and kept (24 bytes a document) and a little padding.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.dataset import Int64, Span, TokenView
from shards.errors import RecipeError, TrainingError
from shards.hashing import stable_hash
from shards.jit import kernel
from shards.loader import Batch, batch_memory, check_sizes, check_state
from shards.order import ORDER_VERSION, sample_order

PACKING_VERSION = "best-fit-decreasing/1"
"""Name and version of the plan: a change of it changes every run that packs."""


class Packing(NamedTuple):
    """A plan: row r has the pieces `rows[r]` to `rows[r + 1]`, in this order.

    rows: int64[R + 1].
    starts, lengths: int64[P], each piece's place in the token stream.
    """

    rows: Int64
    starts: Int64
    lengths: Int64


def pack(offsets: Int64, capacity: int) -> Packing:
    """Pack the documents of a token stream into rows of at most `capacity` tokens.

    Args:
        offsets: int64[n + 1]; document i is tokens [offsets[i], offsets[i + 1]) of the stream.
        capacity: tokens a row.

    Raises:
        RecipeError: a capacity below 1.
    """
    if capacity < 1:
        raise RecipeError(f"packing: a row must have room for at least 1 token, got {capacity}")
    sizes = np.diff(offsets)
    pieces = np.maximum(-(-sizes // capacity), 1)
    document = np.repeat(np.arange(len(sizes)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = offsets[document] + number * capacity
    lengths = np.minimum(offsets[document + 1] - starts, capacity)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    row = best_fit(lengths[order], capacity)
    by_row = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=1 if len(row) else 0)
    rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Packing(rows.astype(np.int64), starts[order][by_row], lengths[order][by_row])


@kernel("int64[::1](int64[::1], int64)")
def best_fit(lengths: Int64, capacity: int) -> Int64:
    """Return the row int64[n] of each piece; `lengths` fall and are in [1, capacity].

    Rows with the same room form a stack, so the last one opened is filled first.
    """
    rows = np.empty(len(lengths), np.int64)
    top = np.full(capacity + 1, -1, np.int64)  # by room: the row on top of its stack
    under = np.empty(len(lengths), np.int64)  # by row: the row under it
    opened = 0
    for i in range(len(lengths)):
        room = lengths[i]
        while room <= capacity and top[room] < 0:
            room += 1
        if room > capacity:
            row, room = opened, capacity
            opened += 1
        else:
            row = top[room]
            top[room] = under[row]
        rows[i] = row
        under[row] = top[room - lengths[i]]
        top[room - lengths[i]] = row
    return rows


def document_ids(tokens: Int64, eos_id: int) -> npt.NDArray[np.int32]:
    """Return int32[b, L] that number the documents of each row of `tokens: int64[b, L]` from 0.

    A document ends with its EOS. Attention that looks only at equal numbers (FlexAttention's
    document mask, or `cu_seqlens` made of the changes) keeps documents apart.
    """
    ends = tokens == eos_id
    ids = np.zeros(tokens.shape, np.int32)
    np.cumsum(ends[:, :-1], axis=1, out=ids[:, 1:])
    return ids


class PackedLoader:
    """Batches whose rows are packed documents, each once an epoch, reshuffled every epoch.

    A row has room for T + 1 tokens, the last of them only as a target. Padding is EOS, its targets
    `IGNORE`. The order, the state and world size are as in `shards.loader`.
    """

    def __init__(
        self,
        view: TokenView,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Make the plan, then start at the first row of epoch 0. Arguments as for `Loader`.

        Raises:
            RecipeError: a size that cannot be, or a batch that the ranks cannot share equally.
            TrainingError: the view has no documents.
        """
        check_sizes(sequence_length, batch_size, seed, rank, world_size)
        if view.tokens < 1:
            raise TrainingError(
                f"no data: selection {view.expression!r} keeps no document of {view.dataset.folder}"
            )
        self.view = view
        self.packing = pack(view.document_offsets(), sequence_length + 1)
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self.samples_per_epoch = len(self.packing.rows) - 1
        self._share = np.arange(rank, batch_size, world_size, dtype=np.int64)
        self._g = 0

    @property
    def rows(self) -> int:
        """Rows that this rank takes of each global batch."""
        return len(self._share)

    def next(self, out: Int64 | None = None) -> Batch:
        """Return this rank's rows of the next global batch.

        Args:
            out: int64[b, T + 1] to fill and return as `tokens`; a new array if not given.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        tokens = batch_memory(out, self.rows, self.sequence_length)
        indices = self._g + self._share
        lengths = np.zeros(len(indices), np.int64)
        for row, packed in enumerate(self._packed(indices)):
            for start, length in self._pieces(packed):
                self.view.gather(start, length, tokens[row, lengths[row] :])
                lengths[row] += length
            tokens[row, lengths[row] :] = self.view.dataset.eos_id
        self._g += self.batch_size
        return Batch(indices, tokens, lengths)

    def locate(self, g: int) -> list[Span]:
        """Return the documents that the global index g reads, in order."""
        (packed,) = self._packed(np.array([g], np.int64))
        return [span for piece in self._pieces(packed) for span in self.view.locate(*piece)]

    def state(self) -> dict[str, Any]:
        """Return plain data from which `load_state` goes on with the next batch."""
        return {"g": self._g, **self._identity()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved `state` stopped, with any rank and world size.

        Raises:
            TrainingError: the state is of another dataset, selection, seed, shape or order.
        """
        self._g = check_state(state, self._identity())

    def _packed(self, indices: Int64) -> list[int]:
        order: list[int] = sample_order(indices, self.samples_per_epoch, self.seed).tolist()
        return order

    def _pieces(self, packed: int) -> list[tuple[int, int]]:
        """Return (start, length) in the view's stream of each piece of a packed row."""
        some = slice(self.packing.rows[packed], self.packing.rows[packed + 1])
        starts, lengths = self.packing.starts[some], self.packing.lengths[some]
        return list(zip(starts.tolist(), lengths.tolist(), strict=True))

    def _identity(self) -> dict[str, Any]:
        data = [self.view.dataset.dataset_id, self.view.selection_hash]
        return {
            "order": f"{ORDER_VERSION} {PACKING_VERSION}",
            "data": stable_hash(data),
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
        }
