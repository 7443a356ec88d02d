"""The reference of a job: trained once from the recipe's documents, then read by every worker."""

import tempfile
from functools import cache

import msgspec
import xxhash

from pipelines import files
from pipelines.commit import WORK
from pipelines.quality import ReferenceConfig, SignalsConfig
from pipelines.quality import definitions as signal_definitions
from pipelines.quality.reference import Reference, decode, encode, train_reference
from pipelines.readers import plan_ranges, read_range
from pipelines.recipe import CurateRecipe, InputConfig
from shards.errors import RecipeError
from shards.hashing import stable_hash

BASE_BYTES = 256 << 20
"""Of a larger base, about so many bytes of text are read, the same share of each file."""

_RANGE_BYTES = 4 << 20


def resolve_reference(recipe: CurateRecipe, out: str) -> CurateRecipe:
    """Return the recipe with `signals.reference` as a saved model and its hash.

    Args:
        recipe: as written; one without a reference comes back as it is.
        out: the job's folder, in whose work folder the model is saved.

    Raises:
        RecipeError: a model whose hash is not the one that the recipe pins.
        InputError: files that cannot be read, or too few documents.
    """
    config = recipe.signals.reference
    if config is None:
        return recipe
    path = config.model or _train(config, recipe, out)
    found = xxhash.xxh3_128_hexdigest(files.read_bytes(path))
    if config.hash not in {"", found}:
        raise RecipeError(
            f"signals.reference.hash = {config.hash!r}: the reference's hash is {found!r}: its"
            " documents, their base, zstd_level or a definition have changed"
        )
    signals = msgspec.structs.replace(
        recipe.signals, reference=ReferenceConfig(model=path, hash=found)
    )
    return msgspec.structs.replace(recipe, signals=signals)


def save_reference(recipe: CurateRecipe, path: str) -> str:
    """Train a recipe's reference into a file for `signals.reference.model`; return its hash.

    Raises:
        RecipeError: the recipe has none, or pins another hash.
        InputError: files that cannot be read, or too few documents.
    """
    if recipe.signals.reference is None:
        raise RecipeError("signals.reference: the recipe has no such table, so nothing to train")
    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve_reference(recipe, folder).signals.reference or ReferenceConfig()
        files.write_atomic(path, files.read_bytes(resolved.model))
    return resolved.hash


def load_reference(config: SignalsConfig) -> Reference | None:
    """Return the reference of a resolved recipe, read once a process; None where it has none."""
    if config.reference is None:
        return None
    return _load(config.reference.model, config.reference.hash, config.zstd_level)


@cache
def _load(path: str, digest: str, level: int) -> Reference:
    data = files.read_bytes(path)
    if xxhash.xxh3_128_hexdigest(data) != digest:
        raise RecipeError(f"{path}: the reference was changed while the job ran; run again")
    reference = decode(data)
    if reference.level != level:
        raise RecipeError(
            f"signals.zstd_level = {level}: the reference {path} was trained for level"
            f" {reference.level}"
        )
    return reference


def _train(config: ReferenceConfig, recipe: CurateRecipe, out: str) -> str:
    """Train and save the reference, unless an earlier run of the same inputs did; return where."""
    good = files.expand(config.paths, "signals.reference.paths")
    base = (
        files.expand(config.base_paths, "signals.reference.base_paths")
        if config.base_paths
        else files.expand(recipe.input.paths)
    )
    identity = {
        "good": [_hash(path) for path, _ in good],
        "base": [_hash(path) for path, _ in base],
        "input": msgspec.structs.replace(recipe.input, paths=[]),
        "level": recipe.signals.zstd_level,
        "definitions": signal_definitions(recipe.signals),
    }
    path = files.join(out, WORK, f"reference-{stable_hash(identity)}")
    if not files.exists(path):
        texts, sources = _read(good, recipe.input, None)
        against, _ = _read(base, recipe.input, BASE_BYTES)
        trained = train_reference(texts, sources, against, recipe.signals.zstd_level)
        files.write_atomic(path, encode(trained))
    return path


def _hash(path: str) -> str:
    digest = xxhash.xxh3_128()
    with files.open_file(path) as file:
        while chunk := file.read(_RANGE_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read(
    found: list[tuple[str, int]], config: InputConfig, limit: int | None
) -> tuple[list[bytes], list[str]]:
    """Read documents and sources of files, the first bytes of each where `limit` is less.

    Each file gives its share of the limit by its size, so that what is read depends on what the
    files hold and not on their names or order.
    """
    total = sum(size for _, size in found)
    texts: list[bytes] = []
    sources: list[str] = []
    for path, size in found:
        left = None if limit is None else limit * size // max(total, 1)
        ranges = plan_ranges(
            path, config.format, size, files.open_file, _RANGE_BYTES, fields=config.fields
        )
        for batch in (
            batch
            for span in ranges
            for batch in read_range(
                span, files.open_file, config.fields, max_record_bytes=config.max_record_bytes
            )
        ):
            for text, source in zip(batch["text"], batch["source"].to_pylist(), strict=True):
                if text.is_valid and (left is None or left > 0):
                    texts.append(text.as_buffer().to_pybytes())
                    sources.append(source or config.source)
                    left = None if left is None else left - len(texts[-1])
            if left is not None and left <= 0:
                break
    return texts, sources
