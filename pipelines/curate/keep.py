"""Which of two duplicates the keep policy prefers, as numbers that sort.

A document is better the smaller its (key, tie, doc_id) is; one that the filters drop is never
kept for another's sake. Pairs of huge groups are chosen by `pair_rank`, the same order in one
number, so that what the policy drops has met what it keeps.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.filters import apply_rules, make_rules
from pipelines.quality import SIGNALS
from shards.config import did_you_mean
from shards.errors import RecipeError

if TYPE_CHECKING:
    from pipelines.recipe import CurateRecipe

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EARLIEST = "earliest"
_NOT_ELIGIBLE = 1 << 62


def policy_signal(policy: str) -> tuple[str, float]:
    """Return the signal that a policy sorts by, and the sign that makes smaller better.

    `longest` is the most bytes; `best:<signal>` the highest value, `best:-<signal>` the lowest.

    Raises:
        RecipeError: no such signal.
    """
    if not policy.startswith("best:"):
        return "bytes", -1.0
    name = policy.removeprefix("best:").removeprefix("-")
    if name not in SIGNALS:
        hint = did_you_mean(name, tuple(SIGNALS), "signals")
        raise RecipeError(f"dedup.near.keep = {policy!r}: no such signal{hint}")
    return name, 1.0 if policy.startswith("best:-") else -1.0


def keep_columns(recipe: "CurateRecipe") -> list[str]:
    """Return the columns that `keep_order` reads, each once."""
    signal, _ = policy_signal(recipe.dedup.near.keep)
    rules = make_rules(recipe.filters)
    return list(dict.fromkeys(["position", signal, *(rule.column for rule in rules)]))


def keep_order(
    table: pa.Table, recipe: "CurateRecipe", file_order: int
) -> tuple[Bools, Floats, Ints]:
    """Return (eligible, key, tie) of each row: bool[n], float64[n], int64[n].

    Args:
        table: rows with `keep_columns`; rows that could not be read have null signals and get
            numbers without meaning.
        recipe: its filters and keep policy.
        file_order: place of the rows' input file in `input.paths`, for `earliest`.
    """
    policy = recipe.dedup.near.keep
    columns = {name: table[name].fill_null(0).to_numpy() for name in keep_columns(recipe)}
    failed, _ = apply_rules(make_rules(recipe.filters), columns)
    if policy == EARLIEST:
        return failed < 0, np.full(len(table), float(file_order)), columns["position"]
    signal, sign = policy_signal(policy)
    return failed < 0, sign * columns[signal].astype(np.float64), np.zeros(len(table), np.int64)


def pair_rank(eligible: Bools, key: Floats, tie: Ints, policy: str) -> Ints:
    """Return int64[n] in the order of (eligible first, key, tie), as far as 62 bits tell apart.

    The policy, not the values, decides how the bits are shared: two fragments must agree.
    """
    if policy == EARLIEST:
        order = (key.astype(np.int64) << 44) | np.minimum(tie, (1 << 44) - 1)
    else:
        bits = (key + 0.0).view(np.int64)  # + 0.0: one zero
        order = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits) >> 2
    return np.asarray(np.where(eligible, order, order + _NOT_ELIGIBLE))
