"""The streaming loader: global batches of samples whose order does not depend on world size.

The global sample index g says which sample of which view is read (`shards.samples`,
`shards.mixture`), by arithmetic. Rank r of W takes the g that are r modulo W inside each global
batch. So the state of a run is one number, and going on costs nothing.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.dataset import Gathered, Span, TokenView
from shards.errors import RecipeError, TrainingError
from shards.mixture_config import PackingName
from shards.packing import PackedSamples
from shards.samples import Range, Samples, StreamSamples
from shards.window import NO_WINDOW, Window

Int64 = npt.NDArray[np.int64]

IGNORE = -1
"""Target value of a place that has no next token (padding, and the end of the tail sample)."""

LOOKAHEAD = 8
"""Batches whose blocks are asked for ahead of their turn, where the data is remote."""


class Batch(NamedTuple):
    """The samples of one rank in one global batch.

    indices: int64[b], the global sample indices g.
    tokens: int64[b, T + 1]; beyond a row's length it is filled with EOS.
    lengths: int64[b], tokens that are real: T + 1, but for the tail sample and packed rows.
    full: whether that is so for all rows.
    """

    indices: Int64
    tokens: Int64
    lengths: Int64
    full: bool

    @property
    def inputs(self) -> Int64:
        """int64[b, T], a view of `tokens`."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Int64:
        """int64[b, T]: the next token of each input, `IGNORE` where there is none.

        A view of `tokens`, or of an array of the same shape: the strides are always the same.
        """
        if self.full:
            return self.tokens[:, 1:]
        real = np.arange(self.tokens.shape[1]) < self.lengths[:, np.newaxis]
        return np.where(real, self.tokens, IGNORE)[:, 1:]


class Place(NamedTuple):
    """What a global sample index reads: `ranges` of `view`'s token stream, one after the other.

    source: of a mixture, else empty; epoch, sample: of the source.
    """

    view: TokenView
    source: str
    epoch: int
    sample: int
    ranges: list[Range]


class Batches(ABC):
    """An endless stream of global batches, and this rank's share of each.

    A subclass says which samples a global batch is made of.
    """

    def __init__(
        self, *, sequence_length: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        """Start at the first sample.

        Args:
            sequence_length: T, targets a sample.
            batch_size: samples of one global batch, over all ranks.
            seed: 0 ≤ seed < 2^63, of the order.
            rank, world_size: this process among those that share each global batch.

        Raises:
            RecipeError: a size that cannot be, or a batch that the ranks cannot share equally.
        """
        _check_sizes(sequence_length, batch_size, seed, rank, world_size)
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self._share = np.arange(rank, batch_size, world_size, dtype=np.int64)
        self._shape = (len(self._share), sequence_length + 1)
        self._step = np.full(len(self._share), batch_size, np.int64)
        self._indices = self._share
        self._g = self._requested = 0
        self._views: list[TokenView] = []
        self._remote = False

    @property
    def rows(self) -> int:
        """Samples that this rank takes of each global batch."""
        return len(self._share)

    def next(self, out: Int64 | None = None) -> Batch:
        """Return this rank's samples of the next global batch.

        Args:
            out: int64[b, T + 1] to fill and return as `tokens`; a new array if not given.

        Raises:
            CorruptError: a touched block does not match its hash.
            IndexError: `out` has another shape.
            TrainingError: a mixture whose sources are used up.
        """
        tokens = np.empty(self._shape, np.int64) if out is None else out
        if tokens.shape != self._shape:
            raise IndexError(f"a batch of shape {self._shape} does not fit into {tokens.shape}")
        if self._remote:
            self._request()
        indices = self._indices
        lengths, full = self._fill(indices, tokens)
        self._g += self.batch_size
        self._indices = indices + self._step  # as arrays: with a Python int it takes twice as long
        return Batch(indices, tokens, lengths, full)

    @abstractmethod
    def place(self, g: int) -> Place:
        """Return what the global sample index g reads."""

    @abstractmethod
    def epochs(self, indices: Int64) -> Int64:
        """Return for global indices int64[b] how often their source was read before: int64[b]."""

    @property
    @abstractmethod
    def first_pass(self) -> int:
        """Global index from which on no sample is read for the first time; 2^42 if unknown."""

    def locate(self, g: int) -> list[Span]:
        """Return the documents that the global sample index g reads, in order."""
        place = self.place(g)
        return [span for piece in place.ranges for span in place.view.locate(*piece)]

    def state(self) -> dict[str, Any]:
        """Return plain data from which `load_state` goes on with the next batch."""
        return {"g": self._g, **self.identity}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved `state` stopped, with any rank and world size.

        Raises:
            TrainingError: the state is of other data, another seed, shape, schedule or order; the
                message says all that differs.
        """
        self._g = self._requested = _check_state(state, self.identity)
        self._indices = self._g + self._share

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What two loaders have in common that give the same samples in the same order."""

    @abstractmethod
    def _fill(self, indices: Int64, out: Int64) -> Gathered:
        """Copy the samples at global indices into the rows of `out`."""

    @abstractmethod
    def _pieces(self, indices: Int64) -> list[tuple[TokenView, list[Range]]]:
        """Return what the samples at global indices read."""

    def _request(self) -> None:
        """Let blocks of this batch and of those after it come in, while some are not here."""
        self._remote = any(view.is_remote for view in self._views)
        self._requested = max(self._requested, self._g)
        while self._remote and self._requested <= self._g + LOOKAHEAD * self.batch_size:
            for view, ranges in self._pieces(self._requested + self._share):
                view.request(ranges)
            self._requested += self.batch_size


class Loader(Batches):
    """The samples of one view, reshuffled every epoch; never ends."""

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
        packing: PackingName = "none",
    ) -> None:
        """Start at the first sample of epoch 0.

        Args:
            view: what to read.
            sequence_length, batch_size, seed, rank, world_size: as for `Batches`.
            window: how much is mixed at a time (`shards.window.plan_window`), where the data is
                remote and larger than its cache; not with packing.
            packing: how documents become samples.

        Raises:
            RecipeError: a size that cannot be, or a batch that the ranks cannot share equally.
            TrainingError: the view has no token to predict.
        """
        super().__init__(
            sequence_length=sequence_length,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.view = view
        self.samples = open_samples(view, sequence_length, packing, window)
        self._views, self._remote = [view], view.is_remote
        self._known = {
            "order": self.samples.order,
            "dataset_id": view.dataset.dataset_id,
            "selection": view.selection_hash,
            "seed": seed,
            "sequence_length": sequence_length,
            "batch_size": batch_size,
        }

    @property
    def samples_per_epoch(self) -> int:
        """Samples of the view."""
        return self.samples.count

    @property
    def epoch(self) -> float:
        """How often the view has been read so far, as a fraction."""
        return self._g / self.samples.count

    @property
    def identity(self) -> dict[str, Any]:
        """Order, data, seed and shape."""
        return self._known

    def place(self, g: int) -> Place:
        """Return what the global sample index g reads."""
        ranges = self.samples.ranges(np.array([g], np.int64), self.seed)
        sample = self.samples.sample(g, self.seed)
        return Place(self.view, "", g // self.samples.count, sample, ranges)

    def epochs(self, indices: Int64) -> Int64:
        """Return for global indices int64[b] how often the view was read before: int64[b]."""
        return indices // self.samples.count

    @property
    def first_pass(self) -> int:
        """Global index from which on no sample is read for the first time."""
        return self.samples.count

    def _fill(self, indices: Int64, out: Int64) -> Gathered:
        return self.samples.fill(indices, self.seed, out)

    def _pieces(self, indices: Int64) -> list[tuple[TokenView, list[Range]]]:
        return [(self.view, self.samples.ranges(indices, self.seed))]


def open_samples(
    view: TokenView, sequence_length: int, packing: PackingName, window: Window = NO_WINDOW
) -> Samples:
    """Cut a view into samples.

    Raises:
        RecipeError: packing in windows.
        TrainingError: the view has no token to predict.
    """
    if packing == "none":
        return StreamSamples(view, sequence_length, window)
    if window != NO_WINDOW:
        raise RecipeError(
            "loader: packed rows hold documents from everywhere, so they have no windows; use"
            " packing = 'none', or a cache that holds all the data"
        )
    return PackedSamples(view, sequence_length)


def _check_sizes(
    sequence_length: int, batch_size: int, seed: int, rank: int, world_size: int
) -> None:
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


def _check_state(state: dict[str, Any], identity: dict[str, Any]) -> int:
    """Return the g of a state that was saved by a loader with this identity."""
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
