import pytest

from shards.config import decode
from shards.errors import RecipeError
from trainer.config import ModelConfig, TrainConfig
from trainer.presets import PRESETS, expand_preset
from trainer.sizes import parameter_count

UNITS = {"m": 1e6, "b": 1e9}


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_is_the_number_of_parameters(name):
    model, vocabulary, _ = PRESETS[name]
    named = float(name[:-1]) * UNITS[name[-1]]
    assert parameter_count(model, vocabulary) == pytest.approx(
        named, rel=0.16 if named < 2e5 else 0.06
    )


@pytest.mark.parametrize(
    ("name", "published"), [("1.2b", 1.24e9), ("3.2b", 3.21e9), ("8b", 8.03e9)]
)
def test_the_llama_shapes_have_the_published_sizes(name, published):
    """Model cards of Llama 3.2 and Llama 3; ours have 2 K gains more a layer for QK-norm."""
    model, vocabulary, _ = PRESETS[name]
    assert parameter_count(model, vocabulary) == pytest.approx(published, rel=0.005)


def model_of(value) -> ModelConfig:
    return decode(expand_preset({"train": {"model": value}}), "train", TrainConfig).model


def test_a_recipe_names_a_preset_alone_or_with_changes():
    shape = PRESETS["124m"].model
    assert model_of("124M") == shape
    changed = model_of({"preset": "124m", "layers": 6, "tied": False})
    assert (changed.dim, changed.layers, changed.tied) == (shape.dim, 6, False)
    assert model_of({"layers": 5}) == ModelConfig(layers=5)
    assert expand_preset({"name": "x"}) == {"name": "x"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("12m", r"train.model: no preset '12m'; did you mean '124m'"),
        ({"preset": "124m", "layer": 1}, "unknown key train.model.layer; did you mean 'layers'"),
        ({"preset": 8}, "unknown key train.model.preset"),
    ],
)
def test_a_wrong_preset_is_an_error_that_names_it(value, message):
    with pytest.raises(RecipeError, match=message):
        model_of(value)
