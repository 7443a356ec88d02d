"""Runs with mixtures and packing: configured, stopped in the middle of a stage, recorded."""

import signal

import numpy as np
import pytest

from shards.batches import open_batches
from shards.config import decode
from shards.errors import RecipeError
from shards.mixture_config import BLOCK, MixtureConfig, Stage
from tests.trainer.test_loop import TRAIN, Interrupter, same, without_facts
from trainer.begun import BEGUN, Begun
from trainer.checkpoint import load_checkpoint
from trainer.config import TrainConfig
from trainer.data import read_documents, reading_lines
from trainer.loop import run_key, train
from trainer.progress import Reporter
from trainer.records import read_record
from trainer.run import Run
from trainer.signals import Stopped

B, STEPS = 128, 20
MIXTURE = MixtureConfig(stages=[Stage(0, {"one": 3, "two": 1}), Stage(BLOCK, {"two": 1})])
"""The dataset's own sources; the weights change after 8 of 20 steps, and once more by a cap."""

RECIPE = {
    "sources": {"clean": "dropped == ''", "noisy": "dropped != ''"},
    "max_epochs": {"noisy": 2.5},
    "stages": [{"weights": {"clean": 1, "noisy": 1}}, {"start": 2048, "weights": {"clean": 1}}],
}


@pytest.fixture(scope="module")
def valid(dataset):
    return read_documents(dataset, "split == 'valid' and dropped == ''", 400)


@pytest.fixture
def mixed(tiny):
    fixed = {"batch_size": B, "steps": STEPS, "eval_every": 0, "checkpoint_every": 6}
    return lambda **changes: tiny(**{**fixed, "mixture": MIXTURE, **changes})


@pytest.mark.parametrize(
    ("packing", "stop"), [("none", 3), ("none", 8), ("none", 13), ("best-fit", 9)]
)
def test_a_run_stopped_at_any_stage_ends_as_if_it_had_not_been(
    dataset, valid, mixed, tmp_path, packing, stop
):
    def run(name, reporter):
        view, config = dataset.select(TRAIN), mixed(packing=packing)
        return train(view, valid, config, tmp_path / name, reporter)

    whole = run("whole", Reporter(quiet=True))
    with pytest.raises(Stopped):
        run("stopped", Interrupter(stop, signal.SIGTERM))
    assert without_facts(run("stopped", Reporter(quiet=True))) == without_facts(whole)
    states = [load_checkpoint(tmp_path / n, whole.run_key).state for n in ("whole", "stopped")]
    assert same(*states)


def test_the_model_reads_what_the_stages_say(dataset, valid, mixed, tmp_path, monkeypatch):
    read, step = [], Run._gradient

    def spy(self, inputs, targets):
        read.append(inputs.clone())
        return step(self, inputs, targets)

    monkeypatch.setattr(Run, "_gradient", spy)
    view, config = dataset.select(TRAIN), mixed()
    record = train(view, valid, config, tmp_path / "a", Reporter(quiet=True))
    batches = open_batches(view, config, config.seed)
    sources = [batches.place(g).source for g in range(STEPS * B)]
    assert sources[:BLOCK].count("one") == BLOCK * 3 // 4
    assert set(sources[BLOCK:]) == {"two"}
    for inputs in read:
        np.testing.assert_array_equal(inputs, batches.next().inputs)
    assert record.config.mixture == MIXTURE
    assert {"order", "mixture"} <= record.definitions.keys()
    assert record.facts["world_size"] == 1
    new = open_batches(view, config, config.seed)
    seen = [new.next() for _ in range(STEPS)]
    first = sum(int((b.lengths - 1)[new.epochs(b.indices) == 0].sum()) for b in seen)
    assert record.unique_tokens == first < record.tokens


def test_what_is_read_is_written_before_the_first_step(dataset, valid, mixed, tmp_path):
    with pytest.raises(Stopped):
        train(dataset.select(TRAIN), valid, mixed(), tmp_path / "a", Interrupter(1, signal.SIGTERM))
    begun = read_record(tmp_path / "a" / BEGUN, Begun)
    assert begun.config.mixture == MIXTURE
    assert begun.dataset_id == dataset.dataset_id
    assert begun.facts == {"data": str(dataset.folder), "world_size": 1}


def test_the_run_key_follows_mixture_and_packing(dataset, valid, mixed):
    view = dataset.select(TRAIN)
    other = MixtureConfig(stages=MIXTURE.stages[:1])
    configs = (mixed(), mixed(mixture=None), mixed(mixture=other), mixed(packing="best-fit"))
    assert len({run_key(view, valid, config) for config in configs}) == 4


def test_a_recipe_says_it_in_toml(dataset):
    table = {"train": {"packing": "best-fit", "batch_size": B, "mixture": RECIPE}}
    config = decode(table, "train", TrainConfig)
    assert config.mixture.stages[1] == Stage(2048, {"clean": 1})
    lines = reading_lines(dataset.select(TRAIN), config)
    assert [line.split(":")[0] for line in lines] == ["source clean", "source noisy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "first stage must start at sample 0: write"),
        ({"stages": [{"start": 5, "weights": {"clean": 1}}]}, "first stage must start at sample 0"),
        ({"stages": [{"weights": {"claen": 1}}]}, "unknown source 'claen'; did you mean 'clean'"),
        ({"stages": [{"weights": {"clean": -1}}]}, "weight -1.0 of 'clean'"),
        ({"max_epochs": {"noisy": 0}}, "max_epochs of 'noisy' = 0"),
        ({"sources": {"clean": "x <", "noisy": "x"}}, "selection 'x <': not an expression"),
        ({"wieghts": {}}, "unknown key train.mixture.wieghts"),
        ({"stages": [{"weights": {}}]}, "no source has a weight above 0"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_with_its_value(changes, message):
    with pytest.raises(RecipeError, match=message):
        decode({"train": {"mixture": RECIPE | changes}}, "train", TrainConfig)


def test_packing_is_one_of_two_and_has_no_windows():
    with pytest.raises(
        RecipeError, match=r"train.packing = 'first-fit': expected one of 'best-fit'"
    ):
        decode({"train": {"packing": "first-fit"}}, "train", TrainConfig)
    with pytest.raises(RecipeError, match="packing 'best-fit' with window_mb 64"):
        decode({"train": {"packing": "best-fit", "window_mb": 64}}, "train", TrainConfig)
