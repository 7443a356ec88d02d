"""What a recipe says of the order of a run's samples: packing, windows, mixtures (no kernels).

These are keys of `[train]`, and `[train.mixture]`; `shards.batches` makes a loader of them.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, Protocol

import msgspec

from shards.config import did_you_mean
from shards.errors import RecipeError
from shards.select import columns

BLOCK = 1024
"""Samples that are dealt at a time: a weight must be worth one sample of them."""


PackingName = Literal["none", "best-fit"]
"""How documents become samples: cut out of one stream, or whole into rows."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From global sample index `start` on, sources are drawn by `weights` (any scale)."""

    start: int = 0
    weights: dict[str, float] = {}


class MixtureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sources that are read by weights, which may change on the way.

    `sources` maps a name to a selection of documents, inside what the run trains on; left out,
    they are the dataset's own sources by their names. A document may be in several sources, and is
    not read if it is in none. Sample g of a run is row g % batch_size of step g // batch_size + 1;
    a stage starts at a multiple of 1,024 samples. `max_epochs` caps how often a source is read;
    after that its weight goes to the others.
    """

    sources: dict[str, str] = {}
    stages: list[Stage] = []
    max_epochs: dict[str, float] = {}

    def __post_init__(self) -> None:
        """Check all that needs no data.

        Raises:
            RecipeError: a schedule that cannot be, or a selection that is not one.
        """
        names = sorted(self.sources) or sorted(
            {name for stage in self.stages for name in stage.weights}
        )
        check_schedule(self.stages, names, self.max_epochs)
        for expression in self.sources.values():
            columns(expression)


class Reading(Protocol):
    """The settings that decide, with a seed and a view, every batch of a run."""

    @property
    def sequence_length(self) -> int:
        """T, targets a sample."""

    @property
    def batch_size(self) -> int:
        """Samples a step."""

    @property
    def packing(self) -> PackingName:
        """How documents become samples."""

    @property
    def window_mb(self) -> int:
        """MiB of tokens that are mixed at a time; 0: all of them."""

    @property
    def mixture(self) -> MixtureConfig | None:
        """Sources and their weights; None: all documents alike."""


def check_schedule(
    stages: Sequence[Stage], names: Sequence[str], max_epochs: Mapping[str, float]
) -> None:
    """Check stages and limits against the names of the sources.

    Raises:
        RecipeError: an unknown source, a weight below 0 or too small to be drawn, a stage that
            starts where it cannot, or a limit that is not above 0.
    """
    if not stages or stages[0].start != 0:
        raise RecipeError(
            "mixture: the first stage must start at sample 0"
            + ("" if stages else ": write [[train.mixture.stages]] with weights = {…}")
        )
    for before, stage in pairwise(stages):
        if stage.start <= before.start or stage.start % BLOCK:
            near = max(round(stage.start / BLOCK), before.start // BLOCK + 1) * BLOCK
            raise RecipeError(
                f"mixture: a stage starts at sample {stage.start}; it must be a multiple of"
                f" {BLOCK} after {before.start}, such as {near}"
            )
    for stage in stages:
        at = f"mixture: stage from sample {stage.start}"
        total = sum(stage.weights.values())
        for name, weight in stage.weights.items():
            if name not in names:
                raise RecipeError(
                    f"{at}: unknown source {name!r}{did_you_mean(name, tuple(names), 'sources')}"
                )
            if not 0 <= weight < math.inf or (weight and weight / total * BLOCK < 1):
                raise RecipeError(
                    f"{at}: weight {weight} of {name!r}: expected 0, or at least 1/{BLOCK} of the"
                    f" stage's sum {total}"
                )
        if not total:
            raise RecipeError(f"{at}: no source has a weight above 0")
    for name, limit in max_epochs.items():
        if name not in names or not 0 < limit < math.inf:
            raise RecipeError(
                f"mixture: max_epochs of {name!r} = {limit}: expected a number above 0 of one of"
                f" {', '.join(names)}; leave a source out that may be read without end"
            )
