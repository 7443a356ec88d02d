"""Rules: thresholds over signals that decide between kept and the ledger.

A rule never says only "dropped": it has a name, and what it measured and the threshold it measured
against go into the ledger. `--set filters.bounds.zstd_bpb.min=1.5` adds a rule to a preset's. What
thresholds on single signals cannot say, an expression over several can (`shards/select.py`):

    [filters.keep]
    prose = "ref_z < 4 or (zstd_z < 2 and gopher_stop_words >= 2)"
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality import SIGNALS, switch_of
from pipelines.readers import ERRORS
from shards.config import did_you_mean
from shards.errors import RecipeError
from shards.select import columns as columns_of
from shards.select import select


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest and the largest value of a signal that are kept; None is no limit."""

    min: float | None = None
    max: float | None = None


class FiltersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[filters]` table of a recipe.

    Where two presets limit the same signal, the stricter limit holds. `bounds` maps signals to
    bounds, and replaces a preset's bound on the same signal and side. `keep` maps names of rules,
    which are the reasons of drops, to expressions over signals that kept documents fulfil.
    """

    presets: list[Literal["gopher", "gopher-repetition", "c4", "fineweb", "refinedweb"]] = []
    bounds: dict[str, Bound] = {}
    keep: dict[str, str] = {}


RESERVED = frozenset(
    [
        *ERRORS,
        *("contaminated", "contamination", "exact_duplicate", "near_duplicate", "repeated_text"),
        *("read", "kept", "dropped"),
    ]
)
"""What no rule may be called: the ledger's other reasons, and what stands beside them in counts."""


class Rule(msgspec.Struct, frozen=True):
    """One threshold: `name` is `<column>_<op>`, the reason of a drop.

    `min` drops what is below the threshold, `max` what is above it; equal is kept. A rule with the
    op `keep` has an expression in place of column and threshold, and the name that the recipe gave.
    """

    name: str
    column: str
    op: Literal["min", "max", "keep"]
    threshold: float | None
    expression: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that the rule reads, by name."""
        return sorted(columns_of(self.expression)) if self.expression else [self.column]


PRESETS: dict[str, dict[str, Bound]] = {
    "gopher": {
        "gopher_words": Bound(50, 100_000),
        "gopher_mean_word_length": Bound(3, 10),
        "gopher_hash_ratio": Bound(max=0.1),
        "gopher_ellipsis_ratio": Bound(max=0.1),
        "gopher_bullet_lines": Bound(max=0.9),
        "gopher_ellipsis_lines": Bound(max=0.3),
        "gopher_alphabetic_words": Bound(min=0.8),
        "gopher_stop_words": Bound(min=2),
    },
    "gopher-repetition": {
        "gopher_duplicate_lines": Bound(max=0.3),
        "gopher_duplicate_line_chars": Bound(max=0.2),
        "gopher_duplicate_paragraphs": Bound(max=0.3),
        "gopher_duplicate_paragraph_chars": Bound(max=0.2),
        "gopher_top_2gram": Bound(max=0.2),
        "gopher_top_3gram": Bound(max=0.18),
        "gopher_top_4gram": Bound(max=0.16),
        "gopher_duplicate_5gram": Bound(max=0.15),
        "gopher_duplicate_6gram": Bound(max=0.14),
        "gopher_duplicate_7gram": Bound(max=0.13),
        "gopher_duplicate_8gram": Bound(max=0.12),
        "gopher_duplicate_9gram": Bound(max=0.11),
        "gopher_duplicate_10gram": Bound(max=0.1),
    },
    "c4": {
        "c4_sentences": Bound(min=5),
        "c4_lorem_ipsum": Bound(max=0),
        "c4_curly_brackets": Bound(max=0),
    },
    "fineweb": {
        "gopher_duplicate_line_chars": Bound(max=0.1),
        "fineweb_punctuated_lines": Bound(min=0.12),
        "fineweb_short_lines": Bound(max=0.67),
    },
    "refinedweb": {
        "refinedweb_corrected_words": Bound(max=0.05),
    },
}
"""`gopher`: the quality thresholds of Rae et al. 2021 (arXiv:2112.11446), section A.1.1. The last
asks for English stop words: use it on English text only, or set its minimum to 0.
`gopher-repetition`: those of the paper's table A1.
`c4`: the page rules of Raffel et al. 2020, section 2.2, without its word list. Its line rules
remove lines, not documents, so no threshold here stands for them; but, as in C4, the page rules
see only the lines that those leave (`lines.py`). Its text exists in two forms:
5 sentences and lines of 3 words (JMLR 21/140, taken here; datatrove quotes it too), 3 sentences
and lines of 5 words (arXiv:1910.10683, and the code in TensorFlow Datasets that made C4).
`fineweb`: the three rules of Penedo et al. 2024 (arXiv:2406.17557), section 3.6. The paper drops
what equals a threshold, which is kept here; datatrove's default for duplicated lines is 0.01.
`refinedweb`: the rule of Penedo et al. 2023 (arXiv:2306.01116), appendix G.2, for pages whose lines
it would edit too much; nothing is edited here, and its other rules are Gopher's."""


def make_rules(
    config: FiltersConfig, known: Mapping[str, tuple[pa.DataType, str]] = SIGNALS
) -> tuple[Rule, ...]:
    """Return the rules of a recipe in the order of the signals, `min` before `max`, `keep` last.

    Args:
        config: the `[filters]` table.
        known: the recipe's signals, from `known_signals`.

    So the order, which decides the reason of a document that several rules would drop, does not
    depend on how the recipe is written.

    Raises:
        RecipeError: an unknown signal, a bound without finite limits, a minimum above its maximum,
            an expression that cannot be evaluated or reads no signal, or a name that is reserved.
    """
    limits: dict[tuple[str, str], float] = {}
    for preset in config.presets:
        for column, bound in PRESETS[preset].items():
            for key, limit in _limits(column, bound).items():
                stricter = max if key[1] == "min" else min
                limits[key] = stricter(limit, limits.get(key, limit))
    for column, bound in config.bounds.items():
        if column not in known:
            raise RecipeError(f"filters.bounds.{column}: no such signal{_nearest(column, known)}")
        if pa.types.is_string(known[column][0]):
            raise RecipeError(
                f"filters.bounds.{column}: is a string, which has no minimum: use an expression,"
                f""" filters.keep.{column} = "{column} in ['en', 'de']\""""
            )
        own = _limits(column, bound)
        if not own:
            raise RecipeError(f"filters.bounds.{column}: give min, max or both")
        if not np.isfinite(list(own.values())).all():
            raise RecipeError(f"filters.bounds.{column}: min and max must be finite")
        limits.update(own)
    for column in known:
        low = limits.get((column, "min"), -np.inf)
        high = limits.get((column, "max"), np.inf)
        if low > high:
            raise RecipeError(
                f"filters.bounds.{column}: min = {low:g} is above max = {high:g}, so that nothing"
                " would be kept"
            )
    thresholds = (
        Rule(f"{column}_{op}", column, op, limits[column, op])
        for column in known
        for op in ("min", "max")
        if (column, op) in limits
    )
    return (*thresholds, *_expressions(config, known))


def _expressions(
    config: FiltersConfig, known: Mapping[str, tuple[pa.DataType, str]]
) -> tuple[Rule, ...]:
    """Return the rules of `filters.keep` by name, each tried on no documents."""
    nothing = pa.table({name: pa.array([], type_) for name, (type_, _) in known.items()})
    for name, expression in config.keep.items():
        if not name.isidentifier() or name.endswith(("_min", "_max")):
            raise RecipeError(
                f"filters.keep.{name}: a rule's name is letters, digits and _, and does not end in"
                " _min or _max, as those of bounds do"
            )
        if name in RESERVED:
            raise RecipeError(
                f"filters.keep.{name}: is what the ledger calls drops for another reason; choose"
                f" another name, such as filters.keep.own_{name}"
            )
        if not expression.strip():
            raise RecipeError(
                f"filters.keep.{name} is empty; compare a signal with a value, such as chars > 100"
            )
        try:
            read = columns_of(expression)
            if unknown := sorted(read - set(known)):
                hint = _nearest(unknown[0], known)
                raise RecipeError(f"{expression!r}: unknown column {unknown[0]!r}{hint}")
            select(nothing, expression)
        except RecipeError as error:
            raise RecipeError(f"filters.keep.{name}: {error}") from None
        if not read:
            raise RecipeError(
                f"filters.keep.{name} = {expression!r}: names no signal, so that it keeps all"
                " documents or none; compare a signal with a value, such as chars > 100"
            )
    return tuple(Rule(name, "", "keep", None, config.keep[name]) for name in sorted(config.keep))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    """Return the end of a message about an unknown signal: the nearest ones, not all of them."""
    if switch := switch_of(name):
        return f"; {switch} adds it"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    if difflib.get_close_matches(name, near, cutoff=0.5):
        return did_you_mean(name, tuple(near))
    some = f"; nearest: {', '.join(near)}" if near else ""
    return f"{some}; `assay explain DATASET DOCUMENT` lists a document's signals"


def rule_columns(table: pa.Table, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns of a table as arrays (n), with 0 or the empty string for nulls."""
    found = {}
    for name in names:
        column = table[name]
        nothing = "" if pa.types.is_string(column.type) else 0
        found[name] = column.fill_null(nothing).to_numpy()
    return found


def apply_rules(
    rules: tuple[Rule, ...], columns: Mapping[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
    """Find the first rule that each document fails.

    Args:
        rules: in order.
        columns: signal → array (n), as `rule_columns` gives them; at least one.

    Returns:
        int16 (n), the index into `rules`, -1 for documents that pass all; and float64 (n), the
        value that failed, NaN for documents that pass, or that failed an expression.

    A value is compared in its column's own type: the float32 share 0.1 is not above the threshold
    0.1. NaN, as of a plug-in, fails every rule: what was not measured is not known to
    be good.

    Raises:
        RecipeError: a rule names a column that is not there, or computes what 64 bits do not hold.
    """
    count = len(next(iter(columns.values()), ()))
    failed = np.full(count, -1, np.int16)
    measured = np.full(count, np.nan)
    for index, rule in enumerate(rules):
        for column in rule.columns:
            if column not in columns:
                hint = did_you_mean(column, tuple(columns), "columns")
                raise RecipeError(f"rule {rule.name}: no column {column!r}{hint}")
        if rule.threshold is None:
            table = pa.table({column: _arrow(columns[column]) for column in rule.columns})
            try:
                passes = select(table, rule.expression)
            except RecipeError as error:  # a number that leaves 64 bits
                raise RecipeError(f"filters.keep.{rule.name}: {error}") from None
            failed[~passes & (failed < 0)] = index
            continue
        values = columns[rule.column]
        is_float = np.issubdtype(values.dtype, np.floating)
        threshold = values.dtype.type(rule.threshold) if is_float else rule.threshold
        passes = values >= threshold if rule.op == "min" else values <= threshold
        first = ~passes & (failed < 0)
        failed[first] = index
        measured[first] = values[first]
    return failed, measured


def _arrow(values: npt.NDArray[Any]) -> pa.Array:
    """Wrap a column; strings by name, for no string at all has no type."""
    return pa.array(values, None if np.issubdtype(values.dtype, np.number) else pa.string())


def _limits(column: str, bound: Bound) -> dict[tuple[str, str], float]:
    sides = (("min", bound.min), ("max", bound.max))
    return {(column, op): float(limit) for op, limit in sides if limit is not None}
