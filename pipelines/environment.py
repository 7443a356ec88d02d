"""Checks of the installation: do our import names belong to us, and which code is it that runs.

`tokenizer` and `trainer` exist on the package index; a second distribution with such a module
would be imported in place of ours, or overwrite it, without any error.
"""

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from itertools import zip_longest
from pathlib import Path

from shards.errors import PlatformError, RecipeError

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


@cache
def code_hash() -> str:
    """Return the sha256 (hex) of Assay's own modules as they are installed here.

    A version names a release, and not what somebody has edited since.
    """
    modules = []
    for name in NAMES:
        root = Path(str(resources.files(name)))
        for path in root.rglob("*.py"):
            modules.append((f"{name}/{path.relative_to(root).as_posix()}", path.read_bytes()))
    return _hash_modules(modules)


def wheel_code_hash(path: Path) -> str:
    """Return the same for the modules in a wheel.

    Raises:
        RecipeError: it is no wheel of Assay's.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.split("/")[0] in NAMES]
            return _hash_modules((n, wheel.read(n)) for n in names if n.endswith(".py"))
    except (OSError, zipfile.BadZipFile) as error:
        raise RecipeError(f"{path}: is no wheel: {error}; make wheel builds one") from None


def _hash_modules(modules: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(modules):
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def shipped_packages(beam_args: Sequence[str]) -> dict[str, str]:
    """Return name → sha256 (hex) of the packages that `--extra_package` ships to the workers.

    Raises:
        RecipeError: a package is missing, or is a wheel of Assay's with other code than runs here,
            so that the workers would make another dataset than the plan says.
    """
    found = {}
    for place in _extra_packages(beam_args):
        path = Path(place)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecipeError(f"--extra_package {place}: {error.strerror}") from None
        ours = path.name.startswith(DISTRIBUTION.replace("-", "_")) and path.suffix == ".whl"
        if ours and wheel_code_hash(path) != code_hash():
            raise RecipeError(
                f"--extra_package {place}: holds other code than the Assay that runs here;"
                " build it again with make wheel"
            )
        found[path.name] = hashlib.sha256(data).hexdigest()
    return found


def _extra_packages(beam_args: Sequence[str]) -> list[str]:
    """Return the values of `--extra_package`, written with `=` or as two words."""
    places = []
    for word, after in zip_longest(beam_args, beam_args[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in {"--extra_package", "--extra_packages"}:
            places.append(value if equals else after)
    return places
