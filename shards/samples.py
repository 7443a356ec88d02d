"""The samples of one view: what a loader's order puts in sequence, and mixtures draw from.

A sample is T tokens and the one after each of them, so T + 1 tokens. A view is cut into samples as
a stream, every T tokens wherever a document ends, or packed (see `shards.packing`). The sample at
place i of epoch e has the number e·N + i, for N samples an epoch.
"""

from typing import Protocol

import numpy as np

from shards.dataset import Gathered, Int64, TokenView
from shards.errors import TrainingError
from shards.order import ORDER_VERSION, WINDOW_VERSION
from shards.window import NO_WINDOW, Window

Range = tuple[int, int]
"""Start and length of a piece of a view's token stream."""


class Samples(Protocol):
    """What `StreamSamples` and `shards.packing.PackedSamples` have in common.

    view: where the tokens are.
    count: samples of an epoch.
    order: names and versions of all that decides which sample comes when.
    """

    view: TokenView
    count: int
    order: str

    def fill(self, numbers: Int64, seed: int, out: Int64) -> Gathered:
        """Copy samples, by number int64[b], into the rows of `out: int64[b, T + 1]`."""

    def sample(self, number: int, seed: int) -> int:
        """Return which sample of the view that is, in [0, count)."""

    def ranges(self, numbers: Int64, seed: int) -> list[Range]:
        """Return the pieces of the view's stream that samples hold, one sample after the other."""


class StreamSamples:
    """Sample k is `stream[kT : kT + T + 1]`; the last one of the stream is short and kept."""

    def __init__(self, view: TokenView, sequence_length: int, window: Window = NO_WINDOW) -> None:
        """Cut a view; `window` says how much of it is mixed at a time.

        Raises:
            TrainingError: the view has no token to predict.
        """
        if view.tokens < 2:
            raise TrainingError(
                f"no data: selection {view.expression!r} keeps {view.documents} documents and"
                f" {view.tokens} tokens of {view.dataset.location}"
            )
        self.view, self.window = view, window
        self.count = -(-(view.tokens - 1) // sequence_length)
        self.order = ORDER_VERSION
        if window != NO_WINDOW:
            self.order += f" {WINDOW_VERSION} {window.chunk}x{window.chunks}"
        self._length = sequence_length

    def fill(self, numbers: Int64, seed: int, out: Int64) -> Gathered:
        """Copy samples into the rows of `out`, the short one filled up with EOS."""
        return self.view.gather_samples(numbers, self.count, seed, out, self.window)

    def sample(self, number: int, seed: int) -> int:
        """Return which sample of the view that is, in the order of its stream."""
        numbers = np.array([number], np.int64)
        return int(self.view.places(numbers, self.count, seed, self.window)[0])

    def ranges(self, numbers: Int64, seed: int) -> list[Range]:
        """Return one piece of the stream for each sample."""
        starts = self.view.places(numbers, self.count, seed, self.window) * self._length
        lengths = np.minimum(self._length + 1, self.view.tokens - starts)
        return list(zip(starts.tolist(), lengths.tolist(), strict=True))
