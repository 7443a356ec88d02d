"""Make a dataset again from what its manifest says, and compare the ids."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from pipelines import tokenize as tokenize_job
from pipelines.commit import check_name, read_dataset
from pipelines.curate.inputs import find_inputs, hash_inputs, plain_hashes
from pipelines.curate.job import curate
from pipelines.recipe import CurateRecipe, curate_recipe, definitions
from pipelines.runners import JobOptions
from pipelines.score import read_run, score, score_facts
from pipelines.tokenize import TokenizeConfig, tokenize
from shards.config import decode
from shards.errors import DatasetError, InputError
from shards.manifest import Manifest, made_as
from tokenizer.folder import read_model
from tokenizer.model import Tokenizer

_OF_FILES = ("word_list ", "url_list ", "classifier ")
"""How definitions begin that have the hash of a file of the user's."""


def reproduce(dataset: str, out: str, options: JobOptions) -> tuple[str, str]:
    """Run the job that made `dataset` again, into `out`.

    Inputs are looked for where the manifest says they were; their content is compared first, so
    that a changed file is named instead of ending in another id.

    Args:
        dataset: folder of a documents or tokens dataset, scored or not. Of one that was scored
            the last score is made again, from the dataset that was scored.
        out: a folder that does not hold that dataset.
        options: how to run the job.

    Returns:
        The ids that the manifest states and that the new dataset has.

    Raises:
        DatasetError: `out` is the dataset's own folder, the manifest comes from other versions of
            the definitions, or a parent dataset, tokenizer or run is not the one that was used.
        InputError: an input is missing or has changed.
        RecipeError: `out` can be no folder.
    """
    manifest = read_dataset(dataset)
    check_name(out)
    if Path(out).resolve() == Path(dataset).resolve():
        raise DatasetError(f"{out}: is the dataset itself; choose another --out")
    make = {"documents": _documents, "tokens": _tokens, "scored": _scored}
    made = make[made_as(manifest.content)](manifest, dataset, out, options)
    return manifest.dataset_id, made.dataset_id


def _documents(manifest: Manifest, dataset: str, out: str, options: JobOptions) -> Manifest:
    recipe = curate_recipe(_fact(manifest, "recipe", dataset))
    web = "web_text" in manifest.content.definitions
    _check_definitions(manifest, definitions(recipe.signals, web=web), dataset)
    with tempfile.TemporaryDirectory() as scratch:  # not in `out`, which is the job's
        hashed = plain_hashes(hash_inputs(find_inputs(recipe), scratch, options))
    _check_inputs(manifest, hashed)
    return curate(_pinned(recipe, manifest), out, options)[0]


def _pinned(recipe: CurateRecipe, manifest: Manifest) -> CurateRecipe:
    """Return the recipe with the hashes of its models: other documents are told before the scan."""
    replace, stated = msgspec.structs.replace, manifest.content.recipe["signals"]
    signals = recipe.signals
    if signals.reference is not None:
        own = replace(signals.reference, hash=stated["reference"]["hash"])
        signals = replace(signals, reference=own)
    models = {
        name: replace(own, hash=stated["importance"][name]["hash"])
        for name, own in signals.importance.items()
    }
    return replace(recipe, signals=replace(signals, importance=models))


def _check_inputs(manifest: Manifest, hashed: list[tuple[str, int, str]]) -> None:
    """Compare the inputs with what the manifest says they were."""
    stated = Counter((entry.hash, entry.bytes) for entry in manifest.content.inputs)
    for path, size, found in hashed:
        if not stated[found, size]:
            raise InputError(
                f"{path}: is not the file that was read: {size} bytes with xxh3-128 {found}, which"
                " is none of the manifest's inputs, or more often than there"
            )
        stated[found, size] -= 1


def _tokens(manifest: Manifest, dataset: str, out: str, options: JobOptions) -> Manifest:
    _check_definitions(manifest, tokenize_job.definitions(), dataset)
    data, model = _fact(manifest, "data", dataset), _fact(manifest, "tokenizer", dataset)
    parent = read_dataset(data).dataset_id
    if [parent] != manifest.content.parents:
        raise DatasetError(
            f"{data}: holds dataset {parent}, but {dataset} was made from"
            f" {', '.join(manifest.content.parents)}"
        )
    facts = dict(Tokenizer(read_model(Path(model)), model).facts)
    if facts != manifest.content.tokenizer:
        raise DatasetError(f"{model}: is not the tokenizer that {dataset} was made with")
    config = decode(manifest.content.recipe, "tokenize", TokenizeConfig)
    return tokenize(data, model, out, config, options)[0]


def _scored(manifest: Manifest, dataset: str, out: str, options: JobOptions) -> Manifest:
    """Make the last score again: the column that the dataset that was scored does not have."""
    data, run = _fact(manifest, "scored", dataset), _fact(manifest, "run", dataset)
    scores, before = manifest.content.recipe["score"], read_dataset(data)
    new = sorted(scores.keys() - before.content.recipe.get("score", {}).keys())
    if len(new) != 1 or scores[new[0]]["data"] != before.dataset_id:
        raise DatasetError(
            f"{data}: holds dataset {before.dataset_id}, which is not the one that {dataset} is the"
            " scores of; restore it, or make it again with `assay tokenize` or `assay score`"
        )
    column, by = new[0], scores[new[0]]
    record = read_run(run)
    found = score_facts(record, before.dataset_id, by["device"])
    for name in sorted(by.keys() | found.keys()):
        if by.get(name) != found.get(name):
            raise DatasetError(
                f"{run}: {name} is {found.get(name)!r}, but {dataset} was scored with"
                f" {by.get(name)!r}; restore the run's folder, or use Assay"
                f" {manifest.run.get('assay', 'of that time')} if a definition differs"
            )
    run_data = manifest.run.get("run_data")
    return score(data, run, out, options, column=column, device=by["device"], run_data=run_data)[0]


def _check_definitions(manifest: Manifest, ours: dict[str, str], dataset: str) -> None:
    theirs = manifest.content.definitions
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            if name.startswith(_OF_FILES) and name in theirs and name in ours:
                raise InputError(
                    f"{dataset}: was made with the {name} {theirs[name]!r}, whose file is now"
                    f" {ours[name]!r}; restore it"
                )
            raise DatasetError(
                f"{dataset}: was made with {name} {theirs.get(name, 'of no version')!r}, this"
                f" version of Assay has {ours.get(name, 'none')!r}; use Assay"
                f" {manifest.run.get('assay', 'of that time')} to reproduce it"
            )


def _fact(manifest: Manifest, name: str, dataset: str) -> Any:
    try:
        return manifest.run[name]
    except KeyError:
        raise DatasetError(f"{dataset}: its manifest does not say run.{name}") from None
