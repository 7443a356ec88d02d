"""All documents of a dataset as arrays, from which arms are cut: draws, bands, cells, orders.

A draw takes documents in the order of a hash of their ids and a seed until it has the tokens that
it should have. The order does not depend on the draw, so a smaller one lies inside a larger one of
the same selection and seed (the nested subsets of Muennighoff et al. 2023), and no second Beam run
is needed. Each seed has a draw of its own, so an interval over seeds holds for other draws too.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.dataset import TokenDataset, TokenView, segments_of
from shards.errors import RecipeError
from shards.ordered import OrderedView
from shards.select import arithmetic, columns
from trainer.study_config import Cells

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SALT = np.uint64(0x4153_5341_5900_0002)
"""Keeps the order of draws apart from everything else that goes by document id; the last digits
are the version of the draw."""


@dataclass(frozen=True)
class Catalogue:
    """All documents of a dataset, shard after shard; a `Mask` over them, `bool[N]`, is an arm."""

    dataset: TokenDataset
    _orders: dict[int, Ints] = field(default_factory=dict)

    @cached_property
    def borders(self) -> Ints:
        """First document of each shard and the number of all: int64[shards + 1]."""
        return np.cumsum([0, *(entry.documents for entry in self.dataset.entries)])

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each document: int64[N]."""
        return np.concatenate(
            [np.diff(self.dataset.shard(i).offsets) for i in range(len(self.dataset.entries))]
        )

    @cached_property
    def bytes(self) -> Ints:
        """Raw UTF-8 bytes of each document: int64[N]."""
        return self._column("bytes").astype(np.int64)

    @cached_property
    def sources(self) -> Ints:
        """Index of each document's source in `dataset.sources`: int64[N]."""
        return self._column("source_id").astype(np.int64)

    def order(self, seed: int) -> Ints:
        """The documents in the order of the draws of a seed: int64[N]."""
        if seed not in self._orders:
            salt = mixed(np.array([seed], np.uint64))[0] ^ _SALT
            halves = self._halves
            keys = (halves[:, 1], halves[:, 0], mixed(halves[:, 0] ^ salt))
            self._orders[seed] = np.lexsort(keys)
        return self._orders[seed]

    @cached_property
    def _halves(self) -> npt.NDArray[np.uint64]:
        ids = b"".join(
            b"".join(self.dataset.shard(i).batch.column("doc_id").to_pylist())
            for i in range(len(self.dataset.entries))
        )
        return np.frombuffer(ids, "<u8").reshape(-1, 2)

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        shards = range(len(self.dataset.entries))
        return np.concatenate(
            [np.asarray(self.dataset.shard(i).batch.column(name)) for i in shards]
        )

    def numbers(self) -> list[str]:
        """Return the names of the columns that hold a number for each document."""
        if not self.dataset.entries:
            return []
        schema = self.dataset.shard(0).batch.schema
        return [
            item.name
            for item in schema
            if pa.types.is_integer(item.type) or pa.types.is_floating(item.type)
        ]

    def column(self, name: str) -> Floats | None:
        """Return a number column, float64[N], NaN where it is null; None where there is none."""
        return self.values(name, "column") if name in self.numbers() else None

    def select(self, expression: str, key: str) -> Mask:
        """Return the documents that a selection of the recipe keeps; errors name its key.

        Raises:
            RecipeError: the selection cannot be evaluated on the dataset's columns, or is empty.
        """
        shards = range(len(self.dataset.entries))
        try:
            masks = [self.dataset.mask(index, expression) for index in shards]
        except RecipeError as error:
            raise RecipeError(f"{key}: {error}") from None
        mask = np.concatenate([np.zeros(0, np.bool_), *masks])
        if not mask.any():
            raise RecipeError(
                f"{key} = {expression!r} selects no document of {self.dataset.folder}: correct it"
                " (assay inspect lists columns and sources), or leave it out"
            )
        return mask

    def values(self, expression: str, key: str) -> Floats:
        """Return arithmetic over columns for each document, float64[N]; NaN where one is null.

        Raises:
            RecipeError: it is not arithmetic over this dataset's columns; errors name the key.
        """
        shards = range(len(self.dataset.entries))
        try:
            named = columns(expression)
            found = [arithmetic(self.dataset.shard(index).batch, expression) for index in shards]
        except RecipeError as error:
            message = str(error).replace("selection ", "signal ", 1)
            raise RecipeError(f"{key}: {message}") from None
        if not named:
            raise RecipeError(f"{key} = {expression!r}: names no column, so it tells nothing")
        return np.concatenate(found)

    def tokens(self, mask: Mask) -> int:
        """Return the number of tokens of some documents."""
        return int(self.lengths[mask].sum())

    def draw(self, mask: Mask, tokens: int, what: str, seed: int) -> Mask:
        """Return documents of `mask` with as nearly `tokens` tokens as whole documents allow.

        Raises:
            RecipeError: `mask` has fewer tokens; `what` says who asked.
        """
        available = self.tokens(mask)
        if available < tokens:
            raise RecipeError(f"{what} has {available} tokens, and {tokens} were to be drawn")
        order = self.order(seed)
        candidates = order[mask[order]]
        sums = np.cumsum(self.lengths[candidates])
        last = int(np.argmin(np.abs(sums - tokens)))
        drawn = np.zeros_like(mask)
        drawn[candidates[: last + 1]] = True
        return drawn

    def draw_within(self, mask: Mask, tokens: int, seed: int) -> Mask:
        """Return `mask`, or the first documents of the seed's draw that have at most `tokens`."""
        order = self.order(seed)
        candidates = order[mask[order]]
        drawn = np.zeros_like(mask)
        drawn[candidates[np.cumsum(self.lengths[candidates]) <= tokens]] = True
        return drawn

    def band(self, mask: Mask, values: Floats, low: float, high: float) -> Mask:
        """Return the documents of `mask` whose middle token lies in [low, high) by rank of value.

        Bands that meet share no document and leave none out; equal values are ranked by a hash.
        """
        order = self.order(0)
        candidates = order[(mask & np.isfinite(values))[order]]
        candidates = candidates[np.argsort(values[candidates], kind="stable")]
        lengths = self.lengths[candidates]
        middle = (np.cumsum(lengths) - lengths / 2) / max(1, int(lengths.sum()))
        chosen = np.zeros_like(mask)
        chosen[candidates[(middle >= low) & (middle < high)]] = True
        return chosen

    def cells(self, cells: Cells, control: Mask) -> tuple[Ints, list[str]]:
        """Return the cell of each document, int64[N] (-1: its signal is null), and the names.

        Bins of a signal end where equal shares of the control's tokens do.
        """
        if cells.signal is None:
            return self.sources, list(self.dataset.sources)
        values = self.values(cells.signal, "study.cells.signal")
        known = np.flatnonzero(control & np.isfinite(values))
        known = known[np.argsort(values[known], kind="stable")]
        share = np.cumsum(self.lengths[known]) / max(1, int(self.lengths[known].sum()))
        places = np.searchsorted(share, np.arange(1, cells.bins) / cells.bins)
        edges = values[known[np.minimum(places, len(known) - 1)]] if len(known) else np.zeros(0)
        number = np.searchsorted(edges, values, side="left")
        cell = np.where(np.isfinite(values), self.sources * cells.bins + number, -1)
        names = [f"{source}/{n + 1}" for source in self.dataset.sources for n in range(cells.bins)]
        return cell.astype(np.int64), names

    def view(self, copies: Mask | Ints, expression: str, draw: str) -> TokenView:
        """Return the view of documents, each as often as `copies` says (a mask: once).

        `draw` says which of those that `expression` selects they are: see `TokenView`.
        """
        counts = np.asarray(copies, np.int64)
        parts = [np.zeros((0, 5), np.int64)]
        for level in range(1, int(counts.max(initial=0)) + 1):
            for index, (first, end) in enumerate(zip(self.borders, self.borders[1:], strict=False)):
                chosen = counts[first:end] >= level
                parts.append(segments_of(index, chosen, self.dataset.shard(index).offsets))
        size = int((self.bytes * counts).sum())
        documents = int(np.count_nonzero(counts))
        return TokenView(self.dataset, expression, np.concatenate(parts), documents, size, draw)

    def ordered_view(
        self, mask: Mask, values: Floats, stages: int, expression: str, draw: str
    ) -> OrderedView:
        """Return the view that reads documents by ascending value (see `OrderedView`)."""
        chosen = self.order(0)[mask[self.order(0)]]
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        shard = np.searchsorted(self.borders, chosen, side="right") - 1
        row = chosen - self.borders[shard]
        before = np.concatenate([[0], np.cumsum(self.lengths)])
        start = before[chosen] - before[self.borders[shard]]
        lengths = self.lengths[chosen]
        segments = np.stack([shard, row, np.ones_like(row), start, lengths], axis=1)
        segments = segments.astype(np.int64)
        size = int(self.bytes[chosen].sum())
        return OrderedView(self.dataset, expression, segments, len(chosen), size, stages, draw)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a bijective hash of uint64[n] (the finaliser of splitmix64: Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
