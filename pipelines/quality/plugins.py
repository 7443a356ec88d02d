"""Signals from other distributions, found by entry point and switched on by name in a recipe.

    [project.entry-points."assay.signals"]         # in the plug-in's pyproject.toml
    exclamations = "my_package.signals"

`signals.plugins = ["exclamations"]` then adds the columns of `my_package.signals`, anything with
the attributes of `Plugin`. Its `VERSION` goes into the recipe hash, so a plug-in must change it
when its numbers change, as Assay's own definitions do.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.config import did_you_mean
from shards.errors import PlatformError, RecipeError

GROUP = "assay.signals"


class Plugin(Protocol):
    """What a plug-in is: a module or an object.

    Attributes:
        SIGNALS: column → type (int64 or float32) and meaning.
        VERSION: names the definition.
    """

    SIGNALS: dict[str, tuple[pa.DataType, str]]
    VERSION: str

    def compute(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return one array (n) for each of `SIGNALS`, a pure function of each document's bytes.

        Document i is the UTF-8 `data[offsets[i]:offsets[i + 1]]`, of n; do not write into it.
        """


@cache
def load(name: str) -> Plugin:
    """Import a plug-in.

    Raises:
        RecipeError: none of that name is installed.
        PlatformError: it cannot be imported or is not a `Plugin`.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        hint = did_you_mean(name, tuple(installed), "plug-ins") if installed else "; none is"
        raise RecipeError(f"signals.plugins: no plug-in {name!r} is installed{hint}")
    try:
        plugin = installed[name].load()
    except Exception as error:
        raise PlatformError(f"signals.plugins: {name!r} cannot be imported: {error!r}") from error
    missing = [part for part in ("SIGNALS", "VERSION", "compute") if not hasattr(plugin, part)]
    if missing:
        raise PlatformError(f"signals.plugins: {name!r} has no {', '.join(missing)}")
    return cast(Plugin, plugin)


def compute(
    name: str, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return a plug-in's columns in their order, checked and of their types.

    Raises:
        PlatformError: columns are missing, too many, or of another length than the documents.
    """
    plugin = load(name)
    found = plugin.compute(data, offsets)
    if set(found) != set(plugin.SIGNALS):
        raise PlatformError(
            f"plug-in {name!r}: returned {sorted(found)} and not {sorted(plugin.SIGNALS)}"
        )
    for column, values in found.items():
        if np.shape(values) != (len(offsets) - 1,):
            raise PlatformError(
                f"plug-in {name!r}: {column!r} has shape {np.shape(values)} for"
                f" {len(offsets) - 1} documents"
            )
    return {
        column: np.asarray(found[column], np.float32 if type_ == pa.float32() else np.int64)
        for column, (type_, _) in plugin.SIGNALS.items()
    }
