"""Checks of the installation: do our import names belong to us, is what we need there and sound.

`tokenizer` and `trainer` exist on the package index; a second distribution with such a module
would be imported in place of ours, or overwrite it, without any error.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata

from shards.errors import PlatformError

DISTRIBUTION = "assay-corpus"
NAMES = ("pipelines", "tokenizer", "dedup", "shards", "trainer")


def check_import_names(owners: Mapping[str, Sequence[str]] | None = None) -> None:
    """Stop if another installed distribution provides one of our import names.

    Args:
        owners: import name → distributions, `importlib.metadata.packages_distributions()` if None.

    Raises:
        PlatformError: naming the distribution and how to remove it.
    """
    found = metadata.packages_distributions() if owners is None else owners
    for name in NAMES:
        others = sorted(set(found.get(name, ())) - {DISTRIBUTION})
        if others:
            raise PlatformError(
                f"the import name {name!r} is also provided by {', '.join(others)}, which would be"
                f" mixed up with Assay's: remove it (pip uninstall {others[0]}) or install"
                " Assay in an environment of its own"
            )
