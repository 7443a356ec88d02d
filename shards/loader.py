"""The streaming loader: global batches of samples whose order does not depend on world size.

Sample k of T tokens is `stream[kT : kT + T + 1]` of a view: T inputs, and T targets one place on.
The last sample of the stream is short and kept. The global sample index g gives epoch e = g // N
and place g % N; a permutation keyed by (seed, e) gives k. Rank r of W takes the g that are r modulo
W inside each global batch. So the state of a run is one number, and going on costs nothing.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shards.dataset import Span, TokenView
from shards.errors import RecipeError, TrainingError
from shards.order import ORDER_VERSION, WINDOW_VERSION, windowed_order
from shards.window import NO_WINDOW, Window

IGNORE = -1
"""Target value of a place that has no next token (the padding of the tail sample)."""

LOOKAHEAD = 8
"""Batches whose blocks are asked for ahead of their turn, where the data is remote."""


class Batch(NamedTuple):
    """The samples of one rank in one global batch.

    indices: int64[b], the global sample indices g.
    tokens: int64[b, T + 1]; beyond a row's length it is filled with EOS.
    lengths: int64[b], tokens that are real, T + 1 in all rows but the tail sample's.
    """

    indices: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @property
    def inputs(self) -> npt.NDArray[np.int64]:
        """int64[b, T], a view of `tokens`."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """int64[b, T]: the next token of each input, `IGNORE` where there is none.

        A view of `tokens`, or of an array of the same shape: the strides are always the same.
        """
        T = self.tokens.shape[1] - 1
        if np.minimum.reduce(self.lengths) > T:
            return self.tokens[:, 1:]
        real = np.arange(T + 1) < self.lengths[:, np.newaxis]
        return np.where(real, self.tokens, IGNORE)[:, 1:]


class Batches(Protocol):
    """What `Loader` and `shards.mixture_loader.MixtureLoader` have in common."""

    sequence_length: int

    @property
    def rows(self) -> int:
        """Samples that this rank takes of each global batch."""

    def next(self, out: npt.NDArray[np.int64] | None = None) -> Batch:
        """Return this rank's samples of the next global batch."""

    def state(self) -> dict[str, Any]:
        """Return plain data from which `load_state` goes on with the next batch."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved `state` stopped."""


def check_sizes(
    sequence_length: int, batch_size: int, seed: int, rank: int, world_size: int
) -> None:
    """Check what a loader is asked for.

    Raises:
        RecipeError: a size that cannot be, or a batch that the ranks cannot share equally.
    """
    if sequence_length < 1 or batch_size < 1 or not 0 <= seed < 1 << 63:
        raise RecipeError(
            "loader: sequence_length and batch_size must be at least 1 and seed in [0, 2^63),"
            f" got {sequence_length}, {batch_size} and {seed}"
        )
    if not 0 <= rank < world_size:
        raise RecipeError(f"loader: rank {rank} is not in [0, world_size {world_size})")
    if batch_size % world_size:
        raise RecipeError(
            f"loader: batch_size {batch_size} (samples over all ranks) is not divisible by"
            f" world_size {world_size}"
        )


def check_state(state: dict[str, Any], identity: dict[str, Any]) -> int:
    """Return the g of a state that was saved by a loader with this identity.

    Raises:
        TrainingError: the state is of another one; all that differs is named.
    """
    differs = [
        f"{key} was {state.get(key)!r} when it was saved, and is {here!r} now"
        for key, here in identity.items()
        if state.get(key) != here
    ]
    if differs:
        raise TrainingError(
            f"loader state: {'; '.join(differs)}: the samples would not be the same; start a new"
            " run or restore what it was"
        )
    g, batch_size = state.get("g"), identity["batch_size"]
    if not isinstance(g, int) or g < 0 or g % batch_size:
        raise TrainingError(
            f"loader state: g = {g!r} is not a multiple of the batch size {batch_size}"
        )
    return g


def batch_memory(
    out: npt.NDArray[np.int64] | None, rows: int, sequence_length: int
) -> npt.NDArray[np.int64]:
    """Return `out`, or new memory where it is None, for a batch: int64[rows, T + 1].

    Raises:
        IndexError: `out` has another shape.
    """
    shape = (rows, sequence_length + 1)
    tokens = np.empty(shape, np.int64) if out is None else out
    if tokens.shape != shape:
        raise IndexError(f"a batch of shape {shape} does not fit into one of {tokens.shape}")
    return tokens


class Loader:
    """An endless stream of batches from a view, reshuffled every epoch."""

    def __init__(
        self,
        view: TokenView,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        window: Window = NO_WINDOW,
    ) -> None:
        """Start at the first sample of epoch 0.

        Args:
            view: what to read.
            sequence_length: T, targets a sample.
            batch_size: samples of one global batch, over all ranks.
            seed: 0 ≤ seed < 2^63, of the order.
            rank, world_size: this process among those that share each global batch.
            window: how much is mixed at a time (`shards.window.plan_window`), where the data is
                remote and larger than its cache.

        Raises:
            RecipeError: a size that cannot be, or a batch that the ranks cannot share equally.
            TrainingError: the view has no token to predict.
        """
        check_sizes(sequence_length, batch_size, seed, rank, world_size)
        if view.tokens < 2:
            raise TrainingError(
                f"no data: selection {view.expression!r} keeps {view.documents} documents and"
                f" {view.tokens} tokens of {view.dataset.folder}"
            )
        self.view = view
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.samples_per_epoch = -(-(view.tokens - 1) // sequence_length)
        self._share = np.arange(rank, batch_size, world_size, dtype=np.int64)
        self._known = self._identity()
        self._g = self._requested = 0

    @property
    def rows(self) -> int:
        """Samples that this rank takes of each global batch."""
        return len(self._share)

    @property
    def epoch(self) -> float:
        """How often the view has been read so far, as a fraction."""
        return self._g / self.samples_per_epoch

    def next(self, out: npt.NDArray[np.int64] | None = None) -> Batch:
        """Return this rank's samples of the next global batch.

        Args:
            out: int64[b, T + 1] to fill and return as `tokens`; a new array if not given.

        Raises:
            CorruptError: a touched block does not match its hash.
        """
        tokens = batch_memory(out, self.rows, self.sequence_length)
        if self.view.is_remote:
            self._request()
        indices = self._g + self._share
        lengths = self.view.gather_samples(
            indices, self.samples_per_epoch, self.seed, tokens, self.window
        )
        self._g += self.batch_size
        return Batch(indices, tokens, lengths)

    def locate(self, g: int) -> list[Span]:
        """Return the documents that the global sample index g reads, in order."""
        start = self.sample(g) * self.sequence_length
        return self.view.locate(start, min(self.sequence_length + 1, self.view.tokens - start))

    def sample(self, g: int) -> int:
        """Return which sample of the view, in the order of its stream, the global index g reads."""
        indices = np.array([g], np.int64)
        return int(windowed_order(indices, self.samples_per_epoch, self.seed, *self.window)[0])

    def state(self) -> dict[str, Any]:
        """Return plain data from which `load_state` goes on with the next batch."""
        return {"g": self._g, **self._known}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved `state` stopped, with any rank and world size.

        Raises:
            TrainingError: the state is of another dataset, selection, seed, shape or order.
        """
        self._g = self._requested = check_state(state, self._known)

    def _request(self) -> None:
        """Let blocks of this batch and of those after it come in from where they are."""
        self._requested = max(self._requested, self._g)
        while self._requested <= self._g + LOOKAHEAD * self.batch_size:
            indices = self._requested + self._share
            order = windowed_order(indices, self.samples_per_epoch, self.seed, *self.window)
            starts = order * self.sequence_length
            ends = np.minimum(starts + self.sequence_length + 1, self.view.tokens)
            self.view.request(starts, ends - starts)
            self._requested += self.batch_size

    def _identity(self) -> dict[str, Any]:
        order = ORDER_VERSION
        if self.window != NO_WINDOW:
            order += f" {WINDOW_VERSION} {self.window.chunk}x{self.window.chunks}"
        return {
            "order": order,
            "dataset_id": self.view.dataset.dataset_id,
            "selection": self.view.selection_hash,
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
        }
