"""Signals from other distributions, found by entry point and switched on by name in a recipe.

    [project.entry-points."assay.signals"]         # in the plug-in's pyproject.toml
    exclamations = "my_package.signals"

`signals.plugins = ["exclamations"]` then adds the columns of `my_package.signals`, anything with
the attributes of `Plugin`. Its `VERSION` goes into the recipe hash, so a plug-in must change it
when its numbers change, as Assay's own definitions do.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from keyword import iskeyword
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.config import did_you_mean
from shards.errors import PlatformError, RecipeError

GROUP = "assay.signals"

_TYPES = (pa.int64(), pa.float32())


class Plugin(Protocol):
    """What a plug-in is: a module or an object.

    Attributes:
        SIGNALS: column → type (int64 or float32) and meaning. A column's name is an ASCII
            identifier, since filters and selections are expressions, and no other column's.
        VERSION: names the definition.
    """

    SIGNALS: dict[str, tuple[pa.DataType, str]]
    VERSION: str

    def compute(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return one array (n) for each of `SIGNALS`, a pure function of each document's bytes.

        Every value is finite, also for the empty text, and one that its column's type can hold.

        Document i is the UTF-8 `data[offsets[i]:offsets[i + 1]]`, of n; do not write into it.
        """


@cache
def load(name: str) -> Plugin:
    """Import a plug-in.

    Raises:
        RecipeError: none of that name is installed.
        PlatformError: it cannot be imported or is not a `Plugin`: something is missing, or a
            column has a name or type that none can have.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        hint = did_you_mean(name, tuple(installed), "plug-ins") if installed else "; none is"
        raise RecipeError(f"signals.plugins: no plug-in {name!r} is installed{hint}")
    try:
        plugin = installed[name].load()
    except (Exception, SystemExit) as error:
        raise PlatformError(f"signals.plugins: {name!r} cannot be imported: {error!r}") from error
    missing = [part for part in ("SIGNALS", "VERSION", "compute") if not hasattr(plugin, part)]
    if missing:
        raise PlatformError(f"signals.plugins: {name!r} has no {', '.join(missing)}")
    _check(name, plugin)
    return cast(Plugin, plugin)


def _check(name: str, plugin: Any) -> None:
    """Refuse a plug-in whose columns cannot be columns."""
    if not isinstance(plugin.VERSION, str) or not plugin.VERSION:
        raise PlatformError(f"signals.plugins: {name!r}: VERSION = {plugin.VERSION!r} is no string")
    if not isinstance(plugin.SIGNALS, Mapping) or not plugin.SIGNALS:
        raise PlatformError(f"signals.plugins: {name!r}: SIGNALS must map columns to what they are")
    for column, meaning in plugin.SIGNALS.items():
        where = f"signals.plugins: {name!r}: the column {column!r}"
        if not isinstance(column, str) or not _is_name(column):
            raise PlatformError(f"{where}: a column's name is an ASCII identifier, no keyword")
        if not isinstance(meaning, tuple) or len(meaning) != 2 or not isinstance(meaning[1], str):
            raise PlatformError(f"{where} must be a pair of type and meaning, not {meaning!r}")
        if meaning[0] not in _TYPES:
            raise PlatformError(
                f"{where} has the type {meaning[0]}; int64 and float32 are possible"
            )


def _is_name(column: str) -> bool:
    return column.isascii() and column.isidentifier() and not iskeyword(column)


def compute(
    name: str, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return a plug-in's columns in their order, checked and of their types.

    Raises:
        PlatformError: it raises; columns are missing, too many, or of another length than the
            documents; a value is not finite or not of the column's type. The plug-in is named.
    """
    plugin = load(name)
    try:
        found = plugin.compute(data, offsets)
    except (Exception, SystemExit) as error:
        raise PlatformError(
            f"plug-in {name!r}: compute raised {error!r} on {len(offsets) - 1} documents"
        ) from error
    if not isinstance(found, Mapping) or set(found) != set(plugin.SIGNALS):
        returned = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise PlatformError(
            f"plug-in {name!r}: returned {returned} and not {sorted(plugin.SIGNALS)}"
        )
    return {
        column: _column(f"plug-in {name!r}: {column!r}", found[column], type_, len(offsets) - 1)
        for column, (type_, _) in plugin.SIGNALS.items()
    }


def _column(where: str, values: Any, type_: pa.DataType, n: int) -> npt.NDArray[Any]:
    """Return a column of `n` values of its type, if the values are such."""
    if np.shape(values) != (n,):
        raise PlatformError(f"{where} has shape {np.shape(values)} for {n} documents")
    raw = np.asarray(values)
    if raw.dtype.kind not in "buif":
        raise PlatformError(f"{where} has the type {raw.dtype}, not {type_}")
    wrong = ~np.isfinite(raw)
    with np.errstate(all="ignore"):
        cast_ = raw.astype(np.float32 if type_ == pa.float32() else np.int64)
    wrong |= ~np.isfinite(cast_) if type_ == pa.float32() else cast_ != raw
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise PlatformError(
            f"{where} is {raw[row]} for document {row} of {n}; every value must be finite, as"
            f" {type_} can hold it"
        )
    return cast_
