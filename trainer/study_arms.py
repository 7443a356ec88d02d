"""From a study's recipe to the documents of each arm: selections, and draws from them by hash.

A draw takes documents in the order of a hash of their ids until it has the tokens that it should
have. The order does not depend on the draw, so a smaller one lies inside a larger one of the same
selection (as in the nested subsets of Muennighoff et al. 2023), and no second Beam run is needed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shards.dataset import TokenDataset, TokenView, _segments
from shards.errors import RecipeError
from shards.select import select
from trainer.config import StudyConfig

Mask = npt.NDArray[np.bool_]

_SALT = np.uint64(0x4153_5341_5900_0001)
"""Keeps the order of draws apart from everything else that goes by document id; the last digits
are the version of the draw."""


@dataclass(frozen=True)
class Catalogue:
    """All documents of a dataset, shard after shard; a `Mask` over them, `bool[N]`, is an arm."""

    dataset: TokenDataset

    @cached_property
    def borders(self) -> npt.NDArray[np.int64]:
        """First document of each shard and the number of all: int64[shards + 1]."""
        return np.cumsum([0, *(entry.documents for entry in self.dataset.entries)])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document: int64[N]."""
        return np.concatenate(
            [np.diff(self.dataset.shard(i).offsets) for i in range(len(self.dataset.entries))]
        )

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The documents in the order of draws: int64[N]."""
        ids = b"".join(
            b"".join(self.dataset.shard(i).batch.column("doc_id").to_pylist())
            for i in range(len(self.dataset.entries))
        )
        halves = np.frombuffer(ids, "<u8").reshape(-1, 2)
        return np.lexsort([halves[:, 1], halves[:, 0], mixed(halves[:, 0] ^ _SALT)])

    def select(self, expression: str, key: str) -> Mask:
        """Return the documents that a selection of the recipe keeps; errors name its key.

        Raises:
            RecipeError: the selection cannot be evaluated on the dataset's columns, or is empty.
        """
        shards = range(len(self.dataset.entries))
        try:
            masks = [select(self.dataset.shard(index).batch, expression) for index in shards]
        except RecipeError as error:
            raise RecipeError(f"{key}: {error}") from None
        mask = np.concatenate([np.zeros(0, np.bool_), *masks])
        if not mask.any():
            raise RecipeError(
                f"{key} = {expression!r} selects no document of {self.dataset.folder}"
            )
        return mask

    def tokens(self, mask: Mask) -> int:
        """Return the number of tokens of some documents."""
        return int(self.lengths[mask].sum())

    def draw(self, mask: Mask, tokens: int, what: str) -> Mask:
        """Return documents of `mask` with as nearly `tokens` tokens as whole documents allow.

        Raises:
            RecipeError: `mask` has fewer tokens; `what` says who asked.
        """
        available = self.tokens(mask)
        if available < tokens:
            raise RecipeError(f"{what} has {available} tokens, and {tokens} were to be drawn")
        candidates = self.order[mask[self.order]]
        sums = np.cumsum(self.lengths[candidates])
        last = int(np.argmin(np.abs(sums - tokens)))
        drawn = np.zeros_like(mask)
        drawn[candidates[: last + 1]] = True
        return drawn

    def view(self, mask: Mask, expression: str) -> TokenView:
        """Return the view of documents that `expression` keeps, or that are drawn from those."""
        segments, size = [np.zeros((0, 5), np.int64)], 0
        for index, (first, end) in enumerate(zip(self.borders, self.borders[1:], strict=False)):
            shard = self.dataset.shard(index)
            chosen = mask[first:end]
            segments.append(_segments(index, chosen, shard.offsets))
            size += int(np.asarray(shard.batch.column("bytes"))[chosen].sum())
        documents = int(np.count_nonzero(mask))
        return TokenView(self.dataset, expression, np.concatenate(segments), documents, size)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a bijective hash of uint64[n] (the finaliser of splitmix64: Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def open_arms(dataset: TokenDataset, study: StudyConfig, budget: int) -> dict[str, TokenView]:
    """Return the documents of every arm, in the order of `study.arm_names`.

    Args:
        dataset: the tokens dataset that all arms come from.
        study: which arms.
        budget: tokens that a run trains on, for `study.repeats`.

    Raises:
        RecipeError: a selection is not one, or has no document, or too few for a draw; the
            message names the arm.
    """
    all_documents = Catalogue(dataset)
    arms = {
        name: all_documents.select(expression, f"study.arms.{name}")
        for name, expression in study.arms.items()
    }
    selections = dict(study.arms)
    for name in study.random_like:
        arm, pool = f"random-{name}", study.control
        wanted, what = all_documents.tokens(arms[name]), f"study.random_like = {name!r}: arm {pool}"
        arms[arm] = all_documents.draw(arms[pool], wanted, what)
        selections[arm] = selections[pool]
    for times in study.repeats:
        arm, pool = f"repeat-{times}", study.repeat_of or study.control
        wanted, what = -(-budget // times), f"study.repeats = {times}: arm {pool}"
        arms[arm] = all_documents.draw(arms[pool], wanted, what)
        selections[arm] = selections[pool]
    if study.budget == "unique":
        wanted = study.unique_tokens or min(map(all_documents.tokens, arms.values()))
        for name, mask in arms.items():
            arms[name] = all_documents.draw(mask, wanted, f"study.budget = 'unique': arm {name}")
    return {name: all_documents.view(mask, selections[name]) for name, mask in arms.items()}


def draw_words(study: StudyConfig) -> dict[str, str]:
    """Say of every arm how much of its selection is taken."""
    words = dict.fromkeys(study.arms, "all")
    words |= {f"random-{name}": f"as many tokens as {name}" for name in study.random_like}
    words |= {f"repeat-{times}": f"1/{times} of the budget" for times in study.repeats}
    if study.budget == "unique":
        size = study.unique_tokens
        cut = "the smallest arm's tokens" if size is None else f"{size} tokens"
        words = {
            name: cut if text == "all" else f"{text}, then {cut}" for name, text in words.items()
        }
    return words
