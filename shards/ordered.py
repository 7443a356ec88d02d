"""A view whose samples come from its first to its last: a curriculum."""

import numpy as np

from shards.dataset import Gathered, Int64, TokenDataset, TokenView
from shards.hashing import xxh128
from shards.order import permute
from shards.window import NO_WINDOW, Window

CURRICULUM = "curriculum/1"
"""Name and version of the order of `OrderedView`; part of its selection hash."""


class OrderedView(TokenView):
    """A view that decides in which order a loader reads its samples: from its first to its last.

    Each epoch is cut into `stages` equal parts, read one after the other; inside a part samples are
    permuted by the loader's seed, so that a batch is not made of neighbours.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        expression: str,
        segments: Int64,
        documents: int,
        size: int,
        stages: int,
        draw: str = "all",
    ) -> None:
        super().__init__(dataset, expression, segments, documents, size, draw)
        self.stages = stages
        self.selection_hash = xxh128(f"{CURRICULUM} {stages} {self.selection_hash}".encode()).hex()

    def gather_samples(
        self, indices: Int64, samples: int, seed: int, out: Int64, window: Window = NO_WINDOW
    ) -> Gathered:
        """Copy samples in the order of this view; else as `TokenView.gather_samples`.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        T = out.shape[1] - 1
        starts = self.places(indices, samples, seed) * T
        lengths = np.minimum(T + 1, self.tokens - starts)
        self.gather_rows(starts, lengths, out)
        out[np.arange(T + 1) >= lengths[:, np.newaxis]] = self.dataset.eos_id
        return lengths, bool(lengths.min(initial=T + 1) == T + 1)

    def places(self, indices: Int64, samples: int, seed: int, window: Window = NO_WINDOW) -> Int64:
        """Return which samples of the stream, int64[B], the global indices int64[B] read.

        The parts are windows of their own, so `window` is not looked at.
        """
        size = -(-samples // self.stages)
        found = np.empty_like(indices)
        for i, g in enumerate(indices.tolist()):
            epoch, place = divmod(g, samples)
            stage, inside = divmod(place, size)
            here = min(size, samples - stage * size)
            found[i] = stage * size + permute(inside, here, seed, epoch * self.stages + stage)
        return found
