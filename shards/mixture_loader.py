"""A loader over several sources, mixed by a schedule (see `shards.mixture`).

A source is a view: of one dataset or of several that share a tokenizer. Each keeps its own epochs
and its own order, so a change of weights changes how often a source is asked, never which sample it
gives next. As in `shards.loader`, the state is one number and does not depend on world size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shards.dataset import Gathered, Int64, TokenView
from shards.errors import RecipeError, TrainingError
from shards.hashing import stable_hash
from shards.loader import Batches, Place, open_samples
from shards.mixture import MIXTURE_VERSION, plan_mixture
from shards.mixture_config import PackingName, Stage
from shards.samples import Range, Samples
from shards.window import NO_WINDOW, Window


class MixtureLoader(Batches):
    """Batches whose samples come from several views; ends only where all are used up."""

    def __init__(
        self,
        views: Mapping[str, TokenView],
        stages: Sequence[Stage],
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        max_epochs: Mapping[str, float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        window: Window = NO_WINDOW,
        packing: PackingName = "none",
    ) -> None:
        """Start at the first sample.

        Args:
            views: the sources by name.
            stages: their weights, and from which global sample index on.
            sequence_length, batch_size, seed, rank, world_size: as for `shards.loader.Batches`.
            max_epochs: how often a source may be read.
            window, packing: of each source, as for `shards.loader.Loader`.

        Raises:
            RecipeError: a schedule or a size that cannot be, or views of several tokenizers.
            TrainingError: a source that has no token to predict.
        """
        super().__init__(
            sequence_length=sequence_length,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        if len({view.dataset.metadata for view in views.values()}) > 1:
            tokenizers = {n: v.dataset.metadata.tokenizer_sha256[:12] for n, v in views.items()}
            raise RecipeError(f"mixture: the sources have several tokenizers: {tokenizers}")
        self._sources: list[Samples] = []
        for name in sorted(views):
            try:
                found = open_samples(views[name], sequence_length, packing, window)
            except TrainingError as error:
                raise TrainingError(f"mixture: source {name!r}: {error}") from None
            self._sources.append(found)
        counts = {n: s.count for n, s in zip(sorted(views), self._sources, strict=True)}
        self.mixture = plan_mixture(stages, counts, max_epochs)
        self._counts = np.array([samples.count for samples in self._sources], np.int64)
        data = [(view.dataset.dataset_id, view.selection_hash) for _, view in sorted(views.items())]
        self._views = [samples.view for samples in self._sources]
        self._remote = any(view.is_remote for view in self._views)
        self._known = {
            "order": f"{self._sources[0].order} {MIXTURE_VERSION}",
            "mixture": self.mixture.digest,
            "sources": stable_hash([self.mixture.names, data]),
            "seed": seed,
            "sequence_length": sequence_length,
            "batch_size": batch_size,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Order, schedule, sources, seed and shape."""
        return self._known

    def source(self, g: int) -> str:
        """Return the name of the source that the global sample index g reads."""
        return self.place(g).source

    def place(self, g: int) -> Place:
        """Return what the global sample index g reads."""
        sources, numbers = self._assign(np.array([g], np.int64))
        source, number = int(sources[0]), int(numbers[0])
        samples, seed = self._sources[source], self._seed_of(source)
        return Place(
            samples.view,
            self.mixture.names[source],
            number // samples.count,
            samples.sample(number, seed),
            samples.ranges(numbers, seed),
        )

    def epochs(self, indices: Int64) -> Int64:
        """Return for global indices int64[b] how often their source was read before: int64[b]."""
        sources, numbers = self._assign(indices)
        return numbers // self._counts[sources]

    @property
    def first_pass(self) -> int:
        """See `Batches`: a source with a small weight may be new at any time."""
        return self.mixture.end

    def check_enough(self, samples: int) -> None:
        """Refuse, before the first step, a run for which the sources do not suffice.

        Raises:
            RecipeError: `max_epochs` leaves fewer samples.
        """
        if samples > self.mixture.end:
            raise RecipeError(
                f"mixture: with these max_epochs all sources are used up after {self.mixture.end:,}"
                f" samples, and the run reads {samples:,}; train for fewer tokens or allow more"
                " epochs"
            )

    def _assign(self, indices: Int64) -> tuple[Int64, Int64]:
        return self.mixture.assign(indices, self.seed)

    def _fill(self, indices: Int64, out: Int64) -> Gathered:
        if self._g + self.batch_size > self.mixture.end:  # on all ranks at the same step
            raise TrainingError(
                f"mixture: all sources are used up after {self.mixture.end:,} samples (max_epochs);"
                f" {self._g:,} were read; train for fewer steps or allow more epochs"
            )
        lengths, full = np.empty(len(indices), np.int64), True
        sources, numbers = self._assign(indices)
        for source in np.unique(sources).tolist():
            rows = np.flatnonzero(sources == source)
            part = np.empty((len(rows), self._shape[1]), np.int64)
            lengths[rows], whole = self._sources[source].fill(
                numbers[rows], self._seed_of(source), part
            )
            out[rows] = part
            full = full and whole
        return lengths, full

    def _pieces(self, indices: Int64) -> list[tuple[TokenView, list[Range]]]:
        indices = indices[indices < self.mixture.end]
        if not len(indices):
            return []
        sources, numbers = self._assign(indices)
        return [
            (samples.view, samples.ranges(numbers[sources == source], self._seed_of(source)))
            for source, samples in enumerate(self._sources)
        ]

    def _seed_of(self, source: int) -> int:
        """Each source has an order of its own, also where two are the same documents."""
        return (self.seed + (source + 1) * 0x632BE59BD9B4E019) % (1 << 63)
