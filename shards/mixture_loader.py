"""A loader over several sources, mixed by a schedule (see `shards.mixture`).

A source is a view: of one dataset or of several that share a tokenizer. Each keeps its own epochs
and its own order, so a change of weights changes how often a source is asked, never which sample it
gives next. As in `shards.loader`, the state is one number and does not depend on world size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shards.dataset import Int64, Span, TokenView
from shards.errors import RecipeError, TrainingError
from shards.hashing import stable_hash
from shards.loader import Batch, batch_memory, check_sizes, check_state
from shards.mixture import MIXTURE_VERSION, Stage, plan_mixture
from shards.order import ORDER_VERSION, sample_order


class MixtureLoader:
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
    ) -> None:
        """Start at the first sample.

        Args:
            views: the sources by name.
            stages: their weights, and from which global sample index on.
            sequence_length, batch_size, seed, rank, world_size: as for `shards.loader.Loader`.
            max_epochs: how often a source may be read.

        Raises:
            RecipeError: a schedule or a size that cannot be, or views of several tokenizers.
            TrainingError: a source that has no token to predict.
        """
        check_sizes(sequence_length, batch_size, seed, rank, world_size)
        for name, view in views.items():
            if view.tokens < 2:
                raise TrainingError(
                    f"no data: source {name!r}, selection {view.expression!r}, keeps"
                    f" {view.documents} documents and {view.tokens} tokens of {view.dataset.folder}"
                )
        if len({view.dataset.metadata for view in views.values()}) > 1:
            tokenizers = {n: v.dataset.metadata.tokenizer_sha256[:12] for n, v in views.items()}
            raise RecipeError(f"mixture: the sources have several tokenizers: {tokenizers}")
        self._views = [views[name] for name in sorted(views)]
        self._samples = [-(-(view.tokens - 1) // sequence_length) for view in self._views]
        samples = dict(zip(sorted(views), self._samples, strict=True))
        self.mixture = plan_mixture(stages, samples, max_epochs)
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self._share = np.arange(rank, batch_size, world_size, dtype=np.int64)
        self._g = 0

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
            TrainingError: the sources are used up.
        """
        if self._g + self.batch_size > self.mixture.end:
            raise TrainingError(
                f"mixture: all sources are used up after {self.mixture.end:,} samples (max_epochs);"
                f" {self._g:,} were read; train for fewer steps or allow more epochs"
            )
        tokens = batch_memory(out, self.rows, self.sequence_length)
        indices = self._g + self._share
        lengths = np.empty(len(indices), np.int64)
        sources, samples = self.mixture.assign(indices, self.seed)
        for source in np.unique(sources):
            rows = np.flatnonzero(sources == source)
            part = np.empty((len(rows), self.sequence_length + 1), np.int64)
            lengths[rows] = self._views[source].gather_samples(
                samples[rows], self._samples[source], self._seed_of(int(source)), part
            )
            tokens[rows] = part
        self._g += self.batch_size
        return Batch(indices, tokens, lengths)

    def source(self, g: int) -> str:
        """Return the name of the source that the global sample index g reads."""
        return self.mixture.names[int(self.mixture.assign(np.array([g]), self.seed)[0][0])]

    def locate(self, g: int) -> list[Span]:
        """Return the documents that the global sample index g reads, in order."""
        sources, samples = self.mixture.assign(np.array([g], np.int64), self.seed)
        source = int(sources[0])
        view, T = self._views[source], self.sequence_length
        start = int(sample_order(samples, self._samples[source], self._seed_of(source))[0]) * T
        return view.locate(start, min(T + 1, view.tokens - start))

    def state(self) -> dict[str, Any]:
        """Return plain data from which `load_state` goes on with the next batch."""
        return {"g": self._g, **self._identity()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved `state` stopped, with any rank and world size.

        Raises:
            TrainingError: the state is of other sources, another schedule, seed or shape.
        """
        self._g = check_state(state, self._identity())

    def _seed_of(self, source: int) -> int:
        """Each source has an order of its own, also where two are the same documents."""
        return (self.seed + (source + 1) * 0x632BE59BD9B4E019) % (1 << 63)

    def _identity(self) -> dict[str, Any]:
        views = [(view.dataset.dataset_id, view.selection_hash) for view in self._views]
        return {
            "order": f"{ORDER_VERSION} {MIXTURE_VERSION}",
            "mixture": self.mixture.digest,
            "sources": stable_hash([self.mixture.names, views]),
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
        }
