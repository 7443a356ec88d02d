"""Which of two duplicates the keep policy prefers, as numbers that sort.

A document is better the smaller its (key, tie, doc_id) is; one that the filters drop is never
kept for another's sake. Pairs of huge groups are chosen by `pair_rank`, the same order in one
number, so that what the policy drops has met what it keeps.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.curate.schema import OVERLAP
from pipelines.filters import apply_rules, make_rules, rule_columns
from pipelines.quality import SignalsConfig, known_signals
from shards.config import did_you_mean
from shards.errors import RecipeError

if TYPE_CHECKING:
    from pipelines.recipe import CurateRecipe

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EARLIEST, SOURCES = "earliest", "sources"
_TIES = (1 << 44) - 1
_NOT_ELIGIBLE = 1 << 62


def policy_signal(policy: str, signals: SignalsConfig | None = None) -> tuple[str, float]:
    """Return the signal that a policy sorts by, and the sign that makes smaller better.

    `longest`, and `sources` within one source, is the most bytes; `best:<signal>` the highest
    value, `best:-<signal>` the lowest.

    Raises:
        RecipeError: no such signal.
    """
    if not policy.startswith("best:"):
        return "bytes", -1.0
    name = policy.removeprefix("best:").removeprefix("-")
    known = known_signals(signals or SignalsConfig())
    if name not in known:
        hint = did_you_mean(name, tuple(known), "signals")
        raise RecipeError(f"dedup.near.keep = {policy!r}: no such signal{hint}")
    if pa.types.is_string(known[name][0]):
        raise RecipeError(
            f"dedup.near.keep = {policy!r}: {name} is a text, which has no best; name a number"
        )
    return name, 1.0 if policy.startswith("best:-") else -1.0


def keep_columns(recipe: "CurateRecipe") -> list[str]:
    """Return the columns that `keep_order` reads, each once."""
    signal, _ = policy_signal(recipe.dedup.near.keep, recipe.signals)
    rules = make_rules(recipe.filters, known_signals(recipe.signals))
    found = [OVERLAP] if recipe.dedup.contamination.drops else []
    source = ["source"] if recipe.dedup.near.keep == SOURCES else []
    columns = [
        "position",
        signal,
        *(column for rule in rules for column in rule.columns),
        *found,
        *source,
    ]
    return list(dict.fromkeys(columns))


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
    numbers = [name for name in keep_columns(recipe) if name != "source"]
    columns = rule_columns(table, numbers)
    failed, _ = apply_rules(make_rules(recipe.filters, known_signals(recipe.signals)), columns)
    eligible = failed < 0
    if recipe.dedup.contamination.drops:
        eligible &= np.asarray(table[OVERLAP].is_null())
    if policy == EARLIEST:
        return eligible, np.full(len(table), float(file_order)), columns["position"]
    if policy == SOURCES:
        named = pa.array(recipe.dedup.near.sources, type=pa.string())
        place = pc.index_in(table["source"], value_set=named).fill_null(len(named))
        return eligible, place.to_numpy().astype(np.float64), _TIES - columns["bytes"]
    signal, sign = policy_signal(policy, recipe.signals)
    return eligible, sign * columns[signal].astype(np.float64), np.zeros(len(table), np.int64)


def pair_rank(eligible: Bools, key: Floats, tie: Ints, policy: str) -> Ints:
    """Return int64[n] in the order of (eligible first, key, tie), as far as 62 bits tell apart.

    The policy, not the values, decides how the bits are shared: two fragments must agree.
    """
    if policy in (EARLIEST, SOURCES):
        order = (key.astype(np.int64) << 44) | np.clip(tie, 0, _TIES)
    else:
        bits = (key + 0.0).view(np.int64)  # + 0.0: one zero
        order = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits) >> 2
    return np.asarray(np.where(eligible, order, order + _NOT_ELIGIBLE))
