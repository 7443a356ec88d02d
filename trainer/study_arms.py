"""From a study's recipe to the documents of each arm and seed, all of one tokens dataset."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from shards.config import did_you_mean
from shards.dataset import TokenDataset, TokenView
from shards.errors import RecipeError
from trainer.study_catalogue import Catalogue, Floats, Ints, Mask
from trainer.study_config import StudyConfig

SMALLEST_WEIGHT = 1e-3
"""Cells of a probe with less than this share are left out: it would be less than a document."""

RANDOM = "random-"
"""Begins the name of a random subset."""

MAX_COPIES = 1000
"""How often a mixture may read a document: far beyond where repeated data is worth anything."""


class Arm(NamedTuple):
    """What a run of an arm reads; `documents` and `tokens` count each document once.

    `copies: uint16[N]` is how often the arm holds each document of the dataset; `shares` says which
    part of its bytes is of which cell (see `study_config.Cells`).
    """

    view: TokenView
    documents: int
    tokens: int
    copies: npt.NDArray[np.uint16]
    shares: dict[str, float]


Arms = dict[int, dict[str, Arm]]
"""By seed and name: draws differ from seed to seed, other arms do not."""


def open_arms(
    dataset: TokenDataset, study: StudyConfig, budget: int, seeds: Sequence[int] | None = None
) -> Arms:
    """Return the documents of every arm, for each seed in the order of `study.arm_names`.

    Args:
        dataset: the tokens dataset that all arms come from.
        study: which arms.
        budget: tokens that a run trains on, for arms that depend on it.
        seeds: for which; by default those of the study.

    Raises:
        RecipeError: a selection is not one, or has no document, or too few for a draw; the
            message names the arm.
    """
    opened = _Opened(Catalogue(dataset), study)
    return {seed: opened.arms(budget, seed) for seed in seeds or study.seeds}


def with_random(dataset: TokenDataset, study: StudyConfig, budget: int) -> StudyConfig:
    """Return the study with its `random_like`; one that the recipe leaves out is chosen here.

    Of the selections, bands, mixtures and probes that hold fewer tokens than the control, the one
    that holds the fewest gets a random subset: what less data does by itself is seen there best,
    and a subset for each would double the study. None where no arm is smaller, and with
    `budget = "unique"`, where all are of one size. Curricula and repeat arms need none: see
    `study_controls.without_random`.

    Mixtures have a draw of their own for each seed, a few documents apart: the first seed decides.

    Raises:
        RecipeError: as `open_arms`.
    """
    if study.random_like is not None:
        return study
    smallest = None
    if study.budget != "unique":
        smallest = _Opened(Catalogue(dataset), study).smallest(budget)
    return msgspec.structs.replace(study, random_like=[] if smallest is None else [smallest])


class _Opened:
    """The selections of a study, evaluated once for all seeds."""

    def __init__(self, catalogue: Catalogue, study: StudyConfig) -> None:
        self._all, self._study = catalogue, study
        self._selections = dict(study.arms)
        self._plain: dict[str, Mask] = {
            name: catalogue.select(expression, f"study.arms.{name}")
            for name, expression in study.arms.items()
        }
        for name, band in study.bands.items():
            pool = band.of or study.control
            values = catalogue.values(band.signal, f"study.bands.{name}.signal")
            mask = catalogue.band(self._plain[pool], values, band.low, band.high)
            if not mask.any():
                raise RecipeError(
                    f"study.bands.{name}: no document of arm {pool} has {band.signal} between the"
                    f" quantiles {band.low} and {band.high}"
                )
            self._plain[name], self._selections[name] = mask, study.arms[pool]
        self._cell, self._cells = catalogue.cells(study.cells, self._plain[study.control])

    def smallest(self, budget: int) -> str | None:
        """Return the arm with the fewest tokens, each document counted once (see `with_random`).

        None if the control has no more. One whose name a random subset could not take, or that is
        named as one, is passed over.
        """
        sizes = {name: self._all.tokens(mask) for name, mask in self._plain.items()}
        for name, _, copies in self._mixed(budget, self._study.seeds[0]):
            sizes[name] = self._all.tokens(copies > 0)
        names = self._study.arm_names
        smaller = [
            name
            for name, size in sizes.items()
            if size < sizes[self._study.control]
            and f"{RANDOM}{name}" not in names
            and not name.startswith(RANDOM)
        ]
        return min(smaller, key=sizes.__getitem__, default=None)

    def arms(self, budget: int, seed: int) -> dict[str, Arm]:
        """Return all arms for one seed."""
        study, everything = self._study, self._all
        chosen: dict[str, Mask | Ints] = dict(self._plain)
        orders: dict[str, tuple[Floats, int]] = {}
        selections = dict(self._selections)
        for name, pool, copies in self._mixed(budget, seed):
            chosen[name] = copies
            selections[name] = selections[pool]
        for name, course in study.curricula.items():
            pool = course.of or study.control
            values = everything.values(course.signal, f"study.curricula.{name}.signal")
            values = -values if course.descending else values
            mask = self._plain[pool] & np.isfinite(values)
            drawn = everything.draw_within(mask, budget, seed)
            if not drawn.any():
                raise RecipeError(
                    f"study.curricula.{name}: of {np.count_nonzero(mask)} documents of arm {pool}"
                    f" with a value of {course.signal}, the first drawn is longer than the budget"
                    f" of {budget} tokens"
                )
            for arm in (name, f"shuffled-{name}"):
                chosen[arm] = drawn
                selections[arm] = selections[pool]
            orders[name] = values, course.stages
        for name in study.random_subsets:
            arm, pool = f"random-{name}", study.control
            wanted = everything.tokens(np.asarray(chosen[name], np.bool_))
            what = f"study.random_like = {name!r}: arm {pool}"
            chosen[arm] = everything.draw(self._plain[pool], wanted, what, seed)
            selections[arm] = selections[pool]
        for times in study.repeats:
            arm, pool = f"repeat-{times}", study.repeat_of or study.control
            wanted, what = -(-budget // times), f"study.repeats = {times}: arm {pool}"
            chosen[arm] = everything.draw(self._plain[pool], wanted, what, seed)
            selections[arm] = selections[pool]
        if study.budget == "unique":
            masks = {name: np.asarray(mask, np.bool_) for name, mask in chosen.items()}
            wanted = study.unique_tokens or min(map(everything.tokens, masks.values()))
            for name, mask in masks.items():
                what = f"study.budget = 'unique': arm {name}"
                chosen[name] = everything.draw(mask, wanted, what, seed)
        draws = draw_words(study)
        return {
            name: self._arm(chosen[name], selections[name], draws[name], orders.get(name))
            for name in study.arm_names
        }

    def _arm(
        self, copies: Mask | Ints, select: str, draw: str, order: tuple[Floats, int] | None
    ) -> Arm:
        mask = np.asarray(copies, np.bool_)
        view = (
            self._all.view(copies, select, draw)
            if order is None
            else self._all.ordered_view(mask, *order, select, draw)
        )
        size = self._all.bytes * np.asarray(copies, np.int64)
        known = mask & (self._cell >= 0)
        sums = np.bincount(self._cell[known], size[known], minlength=len(self._cells))
        shares = {
            name: float(part / max(1, view.bytes))
            for name, part in zip(self._cells, sums, strict=True)
            if part
        }
        held = np.asarray(copies, np.uint16)
        return Arm(view, view.documents, self._all.tokens(mask), held, shares)

    def _mixed(self, budget: int, seed: int) -> Iterator[tuple[str, str, Ints]]:
        """Yield name, pool and copies of each document, int64[N], of all mixtures and probes."""
        study = self._study
        for name, mix in study.mixtures.items():
            pool, key = mix.of or study.control, f"study.mixtures.{name}"
            yield name, pool, self._mixture(mix.weights, pool, budget, seed, key)
        for name, weights in self._probes().items():
            pool = (study.probes.of if study.probes else None) or study.control
            key = f"study.probes: {name}"
            yield name, pool, self._mixture(weights, pool, budget, seed, key)

    def _mixture(
        self, weights: dict[str, float], pool: str, budget: int, seed: int, key: str
    ) -> Ints:
        """Return how often each document is in a mixture, int64[N].

        It holds as many tokens as its scarcest cell has for its share, so that a run reads parts of
        many documents as in an arm that is a selection: the budget alone in whole documents is a
        few of them, and worse (docs/studies/first-study.md, second round). Where that is less than
        the budget it holds the budget, what is scarce repeatedly.
        """
        total = sum(weights.values())
        counts = np.zeros(len(self._cell), np.int64)
        if not total > 0:
            raise RecipeError(f"{key}: no cell has a weight above 0: {weights}")
        taken = np.zeros(len(self._cell), np.bool_)
        wanted: list[tuple[str, float, Mask, int]] = []
        for cell, weight in weights.items():
            mask = self._plain[pool] & self._in_cell(cell, key)
            if (mask & taken).any():
                raise RecipeError(
                    f"{key}: documents of {cell!r} are in another cell with a weight as well;"
                    " name a source or its bins, not both"
                )
            taken |= mask
            if not weight:
                continue
            available = self._all.tokens(mask)
            if not available:
                raise RecipeError(f"{key}: arm {pool} has no document in cell {cell!r}")
            wanted.append((cell, weight / total, mask, available))
        size = max(budget, int(min(available / share for _, share, _, available in wanted)))
        for cell, share, mask, available in wanted:
            times, rest = divmod(round(share * size), available)
            if times > MAX_COPIES:
                raise RecipeError(
                    f"{key}: cell {cell!r} of arm {pool} has {available} tokens, which a share of"
                    f" {share:.3g} of {budget} would read {times} times; at most"
                    f" {MAX_COPIES}: lower its weight"
                )
            counts[mask] = times
            if rest:
                counts += self._all.draw(mask, rest, key, seed)
        return counts

    def _in_cell(self, cell: str, key: str) -> Mask:
        """Return the documents of a cell, or of all bins of a source."""
        sources = self._all.dataset.sources
        if cell in self._cells:
            return np.equal(self._cell, self._cells.index(cell))
        if cell in sources:
            return np.equal(self._all.sources, sources.index(cell))
        known = tuple(dict.fromkeys([*self._cells, *sources]))
        raise RecipeError(f"{key}: {cell!r} is no cell{did_you_mean(cell, known, 'cells')}")

    def _probes(self) -> dict[str, dict[str, float]]:
        """Draw the weights of all probes: name → cell → share of the tokens."""
        probes = self._study.probes
        if probes is None:
            return {}
        pool = self._plain[probes.of or self._study.control] & (self._cell >= 0)
        tokens = np.bincount(self._cell[pool], self._all.lengths[pool], minlength=len(self._cells))
        there = np.flatnonzero(tokens)
        alpha = probes.concentration * tokens[there] / tokens.sum()
        found = {}
        for number in range(1, probes.count + 1):
            weights = np.random.default_rng([probes.seed, number]).dirichlet(alpha)
            found[f"probe-{number:02}"] = {
                self._cells[cell]: float(weight)
                for cell, weight in zip(there, weights, strict=True)
                if weight >= SMALLEST_WEIGHT
            }
        return found


def draw_words(study: StudyConfig) -> dict[str, str]:
    """Say of every arm how much of its selection is taken, and in which order."""
    words = dict.fromkeys(study.arms, "all")
    for name, band in study.bands.items():
        words[name] = f"{band.signal} between quantiles {band.low:g} and {band.high:g}"
    words |= dict.fromkeys(study.mixtures, "by weights")
    for name, course in study.curricula.items():
        fall = "falling" if course.descending else "rising"
        words[name] = f"at most the budget, {course.signal} {fall}"
        words[f"shuffled-{name}"] = f"the documents of {name}, shuffled"
    words |= {f"random-{name}": f"as many tokens as {name}" for name in study.random_subsets}
    words |= {f"repeat-{times}": f"1/{times} of the budget" for times in study.repeats}
    probes = dict.fromkeys(study.arm_names, "by random weights")
    words = {name: words.get(name, probes[name]) for name in study.arm_names}
    if study.budget == "unique":
        size = study.unique_tokens
        cut = "the smallest arm's tokens" if size is None else f"{size} tokens"
        words = {
            name: cut if text == "all" else f"{text}, then {cut}" for name, text in words.items()
        }
    return words
