"""The recipe tables of the curate job, and the hash of everything in them that changes a result."""

from typing import Annotated, Any

import msgspec

import dedup.config
import pipelines.quality
from dedup.config import DedupConfig
from pipelines.curate import bits
from pipelines.curate.keep import policy_signal
from pipelines.filters import FiltersConfig, make_rules
from pipelines.quality import SignalsConfig, check_signals, known_signals
from pipelines.readers import FORMATS, Fields, web_definition
from pipelines.readers.jsonl import line_parser
from shards.config import Table, decode, did_you_mean
from shards.errors import RecipeError

Fraction = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class InputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[input]` table: which files, and where in a record the text is.

    `paths` are files or globs on any file system Beam knows. `source` names the source of records
    that do not name their own in `source_field`.
    """

    paths: list[str] = []
    format: str = "auto"
    text_field: Annotated[str, msgspec.Meta(min_length=1)] = "text"
    id_field: str = "id"
    source_field: str = "source"
    url_field: str = "url"
    source: str = "unnamed"
    max_record_bytes: Positive = 256 << 20

    @property
    def fields(self) -> Fields:
        """Where in a record the reader finds what."""
        return Fields(self.text_field, self.id_field, self.source_field, self.url_field)


class SplitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[split]` table: hold out whole near-duplicate clusters for validation.

    A cluster goes to `valid` when the hash of (salt, cluster) falls below `valid_fraction`, so that
    no document of the training split has a verified duplicate in the validation split.
    """

    valid_fraction: Fraction = 0.0
    salt: str = ""


class OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[output]` table. `shard_bytes` is text per shard, estimated from the input files.

    `dropped_text` keeps the text of dropped documents beside the ledger's evidence, so that
    `assay explain` can show it and a study can select differently without a second run.
    """

    shard_bytes: Annotated[int, msgspec.Meta(ge=1 << 16)] = 128 << 20
    dropped_text: bool = True


class CurateRecipe(msgspec.Struct, frozen=True):
    """All tables that the curate job reads."""

    input: InputConfig
    signals: SignalsConfig
    filters: FiltersConfig
    dedup: DedupConfig
    split: SplitConfig
    output: OutputConfig


def curate_recipe(table: Table) -> CurateRecipe:
    """Decode and check the curate job's tables of a recipe.

    Raises:
        RecipeError: unknown key, wrong type, value out of range, or no input paths.
    """
    recipe = CurateRecipe(
        input=decode(table, "input", InputConfig),
        signals=decode(table, "signals", SignalsConfig),
        filters=decode(table, "filters", FiltersConfig),
        dedup=decode(table, "dedup", DedupConfig),
        split=decode(table, "split", SplitConfig),
        output=decode(table, "output", OutputConfig),
    )
    check_signals(recipe.signals)
    policy_signal(recipe.dedup.near.keep, recipe.signals)
    make_rules(recipe.filters, known_signals(recipe.signals))
    line_parser(recipe.input.fields)
    formats = ("auto", *FORMATS)
    if recipe.input.format not in formats:
        hint = did_you_mean(recipe.input.format, formats, "formats")
        raise RecipeError(f"input.format = {recipe.input.format!r}: unknown{hint}")
    if not recipe.input.paths:
        raise RecipeError(
            "input.paths is empty: name at least one file,"
            """ e.g. --set input.paths='["corpus/*.jsonl.zst"]'"""
        )
    return recipe


def hashed_recipe(recipe: CurateRecipe) -> dict[str, Any]:
    """Return the recipe as plain data without what must not matter: where the files lie."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    del plain["input"]["paths"]
    if recipe.signals.reference is not None:  # what it holds matters, not where
        plain["signals"]["reference"] = {"hash": recipe.signals.reference.hash}
    # What a list or a model holds is in the definitions, by its hash.
    plain["signals"]["word_lists"] = dict.fromkeys(sorted(recipe.signals.word_lists), "")
    plain["signals"]["url_lists"] = {name: [] for name in sorted(recipe.signals.url_lists)}
    for own in plain["signals"]["classifiers"].values():
        own |= {"model": "", "sha256": ""}
    for own in plain["signals"]["importance"].values():
        own |= {"paths": [], "base_paths": [], "model": ""}
    plain["dedup"]["against"] = len(recipe.dedup.against)
    plain["dedup"]["contamination"]["sets"] = sorted(recipe.dedup.contamination.sets)
    return plain


def definitions(
    signals: SignalsConfig = pipelines.quality.DEFAULT, *, web: bool = False
) -> dict[str, str]:
    """Return name → version of every definition that can change a decision of the curate job.

    Args:
        signals: the `[signals]` table.
        web: an input holds web pages.
    """
    own = pipelines.quality.definitions(signals)
    pages = {"web_text": web_definition()} if web else {}
    return {**dedup.config.definitions(), **own, **pages, **_OWN_DEFINITIONS}


_OWN_DEFINITIONS = {
    "stage_bits": bits.VERSION,
    "doc_id": "xxh3-128(input hash, copy, position)-v1",
    "keep": "greedy-direct-v1",
    "split": "cluster-hash-v1",
}
