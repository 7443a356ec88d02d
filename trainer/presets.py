"""Models by size: `train.model = "124m"`, or `{ preset = "124m", layers = 6 }` with changes.

The largest have the shapes of published models (GPT-2: Radford et al. 2019; Llama 3: Grattafiori
et al. 2024), so that plans and timings can be compared with theirs. A name is the number of all
parameters with the vocabulary given here; in a run the vocabulary is the tokenizer's.
"""

from typing import Any, NamedTuple

from shards.config import Table, did_you_mean
from shards.errors import RecipeError
from trainer.config import ModelConfig


class Preset(NamedTuple):
    """A model, the vocabulary that its name counts, and the sequence length it is meant for."""

    model: ModelConfig
    vocabulary: int
    sequence_length: int


def _gpt2(dim: int, layers: int, heads: int) -> Preset:
    return Preset(ModelConfig(dim=dim, layers=layers, heads=heads, tied=True), 50_304, 1024)


def _small(dim: int, layers: int, heads: int, vocabulary: int) -> Preset:
    return Preset(ModelConfig(dim=dim, layers=layers, heads=heads, tied=True), vocabulary, 256)


def _llama3(dim: int, layers: int, heads: int, hidden: int, *, tied: bool) -> Preset:
    model = ModelConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=8,
        mlp_ratio=hidden / dim,
        activation="swiglu",
        tied=tied,
        rope_base=500_000.0,
    )
    return Preset(model, 128_256, 8192)


PRESETS = {
    "0.1m": _small(64, 1, 2, 1024),
    "0.5m": _small(96, 3, 2, 2048),
    "1m": _small(128, 4, 2, 2048),
    "4m": _small(256, 4, 4, 4096),
    "15m": _small(320, 6, 5, 24_576),
    "40m": _small(512, 8, 8, 32_000),
    "124m": _gpt2(768, 12, 12),
    "350m": _gpt2(1024, 24, 16),
    "770m": _gpt2(1280, 36, 20),
    "1.2b": _llama3(2048, 16, 32, 8192, tied=True),
    "3.2b": _llama3(3072, 28, 24, 8192, tied=True),
    "8b": _llama3(4096, 32, 32, 14_336, tied=False),
}
"""Name → preset, from the smallest to the largest."""


def preset_named(name: str, where: str) -> Preset:
    """Return a preset; `where` is the option or key that names it.

    Raises:
        RecipeError: there is none of this name.
    """
    preset = PRESETS.get(name.lower())
    if preset is None:
        raise RecipeError(f"{where} {name!r}{did_you_mean(name, tuple(PRESETS), 'presets')}")
    return preset


def expand_preset(table: Table) -> Table:
    """Return a recipe whose `train.model` names no preset any more; the rest is the same.

    Raises:
        RecipeError: there is no preset of that name.
    """
    train = table.get("train")
    model = train.get("model") if isinstance(train, dict) else None
    given: dict[str, Any] = model if isinstance(model, dict) else {}
    name = model if isinstance(model, str) else given.get("preset")
    if not isinstance(train, dict) or not isinstance(name, str):
        return table  # a preset that is no string is an unknown key, which `decode` reports
    shape = preset_named(name, "train.model: no preset").model
    fields = {field: getattr(shape, field) for field in shape.__struct_fields__}
    changes = {key: value for key, value in given.items() if key != "preset"}
    return table | {"train": train | {"model": fields | changes}}
