"""Packing: rows of whole documents instead of a stream that is cut every T tokens.

Best-fit-decreasing (Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024): take
documents from the longest to the shortest and put each into the row that has the least room left
for it. Only documents longer than a row are cut, into full rows and a rest. The price is a plan
that must be made and kept (24 bytes a document) and a little padding.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.dataset import Gathered, Int64, TokenView
from shards.errors import RecipeError, TrainingError
from shards.jit import kernel
from shards.order import ORDER_VERSION, sample_order
from shards.samples import Range

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


class PackedSamples:
    """The rows of a plan, each once an epoch; as `shards.samples.Samples`.

    A row has room for T + 1 tokens, the last of them only as a target. Padding is EOS, its targets
    `IGNORE`.
    """

    def __init__(self, view: TokenView, sequence_length: int) -> None:
        """Make the plan.

        Raises:
            TrainingError: the view has no documents.
        """
        if view.tokens < 1:
            raise TrainingError(
                f"no data: selection {view.expression!r} keeps no document of"
                f" {view.dataset.location}"
            )
        self.view = view
        self.packing = pack(view.document_offsets(), sequence_length + 1)
        self.count = len(self.packing.rows) - 1
        self.order = f"{ORDER_VERSION} {PACKING_VERSION}"

    def fill(self, numbers: Int64, seed: int, out: Int64) -> Gathered:
        """Copy rows, by number int64[b], into those of `out: int64[b, T + 1]`."""
        return self.view.gather_packed(
            sample_order(numbers, self.count, seed), *self.packing, out=out
        )

    def sample(self, number: int, seed: int) -> int:
        """Return which row of the plan a number is."""
        return int(sample_order(np.array([number], np.int64), self.count, seed)[0])

    def ranges(self, numbers: Int64, seed: int) -> list[Range]:
        """Return the pieces of the view's stream that rows hold, one row after the other."""
        pieces: list[Range] = []
        for row in sample_order(numbers, self.count, seed).tolist():
            some = slice(self.packing.rows[row], self.packing.rows[row + 1])
            starts, lengths = self.packing.starts[some], self.packing.lengths[some]
            pieces += zip(starts.tolist(), lengths.tolist(), strict=True)
        return pieces
