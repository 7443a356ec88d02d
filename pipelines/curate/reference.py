"""The reference of a job: trained once from the recipe's documents, then read by every worker."""

import tempfile
from collections.abc import Iterator, Mapping
from functools import cache

import msgspec
import xxhash

from pipelines import files
from pipelines.commit import WORK
from pipelines.curate.hash_cache import HashedFile, changed_since
from pipelines.curate.inputs import hash_inputs
from pipelines.quality import ReferenceConfig, SignalsConfig, pii
from pipelines.quality import definitions as signal_definitions
from pipelines.quality.reference import Reference, decode, encode, sample, train_reference
from pipelines.readers import plan_ranges, read_range
from pipelines.readers.formats import detect
from pipelines.recipe import CurateRecipe, InputConfig
from pipelines.runners import JobOptions
from pipelines.sidecars import read_sidecar, write_sidecar
from shards.errors import InputError, RecipeError
from shards.hashing import stable_hash

BASE_BYTES = 256 << 20
"""Of a larger base, about so many bytes of text are read, the same share of each file: ranges in
the order of a hash. A file that is one range (gzip, WARC, one zstd frame) gives its first bytes."""

_RANGE_BYTES = 4 << 20

Found = list[tuple[str, int]]
"""(path, bytes) of files."""

Hashed = Mapping[str, HashedFile]
"""Path → what is known of the file's content."""


def model_files(recipe: CurateRecipe) -> Found:
    """Return the files of whose documents a recipe's models are trained: targets and bases.

    Raises:
        InputError: there is no such file.
    """
    tables = [
        (f"signals.importance.{name}", own) for name, own in recipe.signals.importance.items()
    ]
    if recipe.signals.reference is not None:
        tables.append(("signals.reference", recipe.signals.reference))
    found: dict[str, int] = {}
    for key, config in tables:
        if not config.model:
            target, base = model_documents(config, key, recipe)
            found |= dict(target) | dict(base)
    return list(found.items())


def model_documents(config: ReferenceConfig, key: str, recipe: CurateRecipe) -> tuple[Found, Found]:
    """Return the files of a model's target, and of its base: the inputs where none is named.

    Raises:
        InputError: there is no such file; names the recipe's `key`.
    """
    base = config.base_paths or recipe.input.paths
    base_key = f"{key}.base_paths" if config.base_paths else "input.paths"
    return files.expand(config.paths, f"{key}.paths"), files.expand(base, base_key)


def content(path: str, size: int, hashed: Hashed, recipe: CurateRecipe) -> list[str]:
    """Return what tells which documents a file has: its hash, its format and compression."""
    return [hashed[path].hash, *detect(path, recipe.input.format, size, files.open_file)]


def check_unchanged(found: Found, hashed: Hashed) -> None:
    """Refuse to go on with what was read of files that are not those that were hashed.

    Raises:
        InputError: naming the first of them.
    """
    known = {path: hashed[path] for path, _ in found if files.is_local(path)}
    stamps = {path: (own.bytes, own.mtime_ns, own.inode) for path, own in known.items()}
    if changed := changed_since(stamps):
        raise InputError(changed)


def resolve_reference(recipe: CurateRecipe, out: str, hashed: Hashed | None = None) -> CurateRecipe:
    """Return the recipe with `signals.reference` as a saved model and its hash.

    Args:
        recipe: as written; one without a reference comes back as it is.
        out: the job's folder, in whose work folder the model is saved.
        hashed: of at least `model_files`; they are hashed here if it is left out.

    Raises:
        RecipeError: a model whose hash is not the one that the recipe pins, or that was trained
            for another zstd level or other masks.
        InputError: files that cannot be read, a model that is none, or too few documents.
    """
    config = recipe.signals.reference
    if config is None:
        return recipe
    path = config.model or _train(config, recipe, out, hashed)
    data = files.read_bytes(path)
    found = xxhash.xxh3_128_hexdigest(data)
    if config.hash not in {"", found}:
        raise RecipeError(
            f"signals.reference.hash = {config.hash!r}: the reference's hash is {found!r}: its"
            " documents, their base, zstd_level or a definition have changed"
        )
    _decoded(data, path, recipe.signals.zstd_level, _masks(recipe.signals))
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
    own = config.reference
    return _load(own.model, own.hash, config.zstd_level, _masks(config))


@cache
def _load(path: str, digest: str, level: int, masks: str) -> Reference:
    data = files.read_bytes(path)
    if xxhash.xxh3_128_hexdigest(data) != digest:
        raise RecipeError(f"{path}: the reference was changed while the job ran; run again")
    return _decoded(data, path, level, masks)


def _decoded(data: bytes, path: str, level: int, masks: str) -> Reference:
    """Return the reference of a file, if documents of this level and masks can be held to it."""
    try:
        reference = decode(data)
    except InputError as error:
        raise InputError(f"signals.reference.model = {path!r}: {error}") from None
    if reference.level != level:
        raise RecipeError(
            f"signals.zstd_level = {level}: the reference {path} was trained for level"
            f" {reference.level}"
        )
    if reference.masks != masks:
        raise RecipeError(
            f"signals.mask_pii: the reference {path} was trained on texts"
            f" {f'masked by {reference.masks}' if reference.masks else 'without masks'}, the"
            f" documents are {f'masked by {masks}' if masks else 'without'}; train it again with"
            " the recipe's [signals] table: assay reference"
        )
    return reference


def _masks(signals: SignalsConfig) -> str:
    """Return the definition by which texts are masked, empty where they are not."""
    return pii.MASK_VERSION if signals.mask_pii else ""


def _train(config: ReferenceConfig, recipe: CurateRecipe, out: str, hashed: Hashed | None) -> str:
    """Train and save the reference, unless an earlier run of the same inputs did; return where."""
    good, base = model_documents(config, "signals.reference", recipe)
    if hashed is None:
        hashed = hash_inputs([*good, *base], out, JobOptions(quiet=True))
    identity = {
        "good": [content(*file, hashed, recipe) for file in good],
        "base": [content(*file, hashed, recipe) for file in base],
        "base_sample": "ranges by hash",
        "input": msgspec.structs.replace(recipe.input, paths=[]),
        "level": recipe.signals.zstd_level,
        "masks": _masks(recipe.signals),
        "definitions": signal_definitions(recipe.signals),
    }
    path = files.join(out, WORK, f"reference-{stable_hash(identity)}")
    if not model_stands(path):
        masked = recipe.signals.mask_pii
        texts, sources = sample(
            item for file in good for item in read_documents(*file, recipe.input, masked=masked)
        )
        trained = train_reference(
            texts,
            sources,
            read_base(base, hashed, recipe),
            recipe.signals.zstd_level,
            _masks(recipe.signals),
        )
        check_unchanged([*good, *base], hashed)
        save_model(path, encode(trained))
    return path


class _Saved(msgspec.Struct, frozen=True):
    """Sidecar of a trained model: the xxh3-128 (hex) of its file."""

    hash: str


def save_model(path: str, data: bytes) -> None:
    """Write a model for the runs that go on, and then its sidecar."""
    files.write_atomic(path, data)
    write_sidecar(f"{path}.json", _Saved(xxhash.xxh3_128_hexdigest(data)))


def model_stands(path: str) -> bool:
    """Tell whether an earlier run has saved a model, and it is as it was written."""
    saved = read_sidecar(f"{path}.json", _Saved)
    if saved is None or not files.exists(path):
        return False
    return xxhash.xxh3_128_hexdigest(files.read_bytes(path)) == saved.hash


def read_base(found: Found, hashed: Hashed, recipe: CurateRecipe) -> list[bytes]:
    """Read the base: each file gives its share of `BASE_BYTES`, so that what is read depends on
    what the files hold and not on their names or order.
    """
    total = sum(size for _, size in found)
    texts: list[bytes] = []
    for path, size in found:
        left = BASE_BYTES * size // max(total, 1)
        documents = read_documents(
            path, size, recipe.input, masked=recipe.signals.mask_pii, by_hash=hashed[path].hash
        )
        while left > 0 and (item := next(documents, None)) is not None:
            texts.append(item[0])
            left -= len(item[0])
    return texts


def read_documents(
    path: str, size: int, config: InputConfig, *, masked: bool, by_hash: str = ""
) -> Iterator[tuple[bytes, str]]:
    """Yield a file's documents, `masked` as the scan masks them, and their sources.

    With `by_hash`, the file's hash, ranges come in the order of their hash and not of the file.
    """
    ranges = plan_ranges(
        path, config.format, size, files.open_file, _RANGE_BYTES, fields=config.fields
    )
    if by_hash:
        ranges.sort(key=lambda span: xxhash.xxh3_128_digest(f"{by_hash} {span.start}".encode()))
    for span in ranges:
        for batch in read_range(
            span, files.open_file, config.fields, max_record_bytes=config.max_record_bytes
        ):
            for text, source in zip(batch["text"], batch["source"].to_pylist(), strict=True):
                if text.is_valid:
                    raw = text.as_buffer().to_pybytes()
                    yield pii.mask(raw)[0] if masked else raw, source or config.source
