"""The importance weights of a job: models trained once from the recipe's documents."""

import msgspec
import xxhash

from pipelines import files
from pipelines.commit import WORK
from pipelines.curate.inputs import hash_inputs
from pipelines.curate.reference import (
    Hashed,
    check_unchanged,
    content,
    model_documents,
    model_stands,
    read_base,
    read_documents,
    save_model,
)
from pipelines.quality import ReferenceConfig, importance, pii
from pipelines.recipe import CurateRecipe
from pipelines.runners import JobOptions
from shards.errors import InputError, RecipeError
from shards.hashing import stable_hash


def resolve_importance(
    recipe: CurateRecipe, out: str, hashed: Hashed | None = None
) -> CurateRecipe:
    """Return the recipe with each `signals.importance` table as a saved model and its hash.

    Args:
        recipe: as written; one without such tables comes back as it is.
        out: the job's folder, in whose work folder the models are saved.
        hashed: of at least `model_files`; they are hashed here if it is left out.

    Raises:
        RecipeError: a model whose hash is not the one that the recipe pins.
        InputError: files that cannot be read, or have no words.
    """
    resolved = {}
    for name, config in sorted(recipe.signals.importance.items()):
        path = _train(name, config, recipe, out, hashed)
        found = xxhash.xxh3_128_hexdigest(files.read_bytes(path))
        if config.hash not in {"", found}:
            raise RecipeError(
                f"signals.importance.{name}.hash = {config.hash!r}: the model's hash is {found!r}:"
                " its documents, their base or a definition have changed"
            )
        resolved[name] = ReferenceConfig(model=path, hash=found)
    signals = msgspec.structs.replace(recipe.signals, importance=resolved)
    return msgspec.structs.replace(recipe, signals=signals)


def _train(
    name: str, config: ReferenceConfig, recipe: CurateRecipe, out: str, hashed: Hashed | None
) -> str:
    """Train and save a model, unless an earlier run of the same inputs did; return where."""
    key = f"signals.importance.{name}"
    target, base = model_documents(config, key, recipe)
    if hashed is None:
        hashed = hash_inputs([*target, *base], out, JobOptions(quiet=True))
    masked = recipe.signals.mask_pii
    identity = {
        "target": sorted(content(*file, hashed, recipe) for file in target),
        "base": sorted(content(*file, hashed, recipe) for file in base),
        "input": msgspec.structs.replace(recipe.input, paths=[]),
        "masks": pii.MASK_VERSION if masked else "",
        "definition": importance.VERSION,
    }
    path = files.join(out, WORK, f"importance-{stable_hash(identity)}")
    if not model_stands(path):
        documents = (
            text
            for file in target
            for text, _ in read_documents(*file, recipe.input, masked=masked)
        )
        try:
            model = importance.train(
                importance.count(documents),
                importance.count(read_base(base, hashed, recipe)),
            )
        except InputError as error:
            raise InputError(f"{key}.{error}") from None
        check_unchanged([*target, *base], hashed)
        save_model(path, importance.encode(model))
    return path
