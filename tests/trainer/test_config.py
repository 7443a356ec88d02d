import math
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from shards.config import decode, load_recipe
from shards.errors import RecipeError
from trainer.begun import definitions_of
from trainer.config import DEFINITIONS, ModelConfig, TrainConfig, check_train
from trainer.presets import PRESETS
from trainer.study_config import StudyConfig


def test_defaults_decode_from_an_empty_recipe():
    assert decode({}, "train", TrainConfig) == TrainConfig()
    assert decode({}, "study", StudyConfig).control == "raw"


@pytest.mark.parametrize(
    ("table", "section", "type_", "message"),
    [
        ({"train": {"model": {"dims": 64}}}, "train", TrainConfig, "did you mean 'dim'"),
        ({"train": {"model": {"dim": 66, "heads": 4}}}, "train", TrainConfig, "multiple of heads"),
        ({"train": {"model": {"dim": 12, "heads": 4}}}, "train", TrainConfig, "RoPE"),
        ({"train": {"model": {"heads": 4, "kv_heads": 3}}}, "train", TrainConfig, "kv_heads 3"),
        ({"train": {"microbatches": 3}}, "train", TrainConfig, "batch_size 16 .* microbatches 3"),
        ({"train": {"optimizer": "sgd"}}, "train", TrainConfig, "train.optimizer = 'sgd'"),
        ({"train": {"learning_rate": 0.0}}, "train", TrainConfig, "train.learning_rate"),
        *(
            ({"train": {key: value}}, "train", TrainConfig, f"train.{key}")
            for key in ("learning_rate", "embedding_learning_rate", "weight_decay", "grad_clip")
            for value in (math.inf, math.nan, -math.inf)
        ),
        *(
            ({"train": {"model": {key: value}}}, "train", TrainConfig, f"train.model.{key} .*<=")
            for key, value in (("mlp_ratio", math.inf), ("dim", 10**8), ("layers", 10**12))
        ),
        ({"train": {"batch_size": 10**18}}, "train", TrainConfig, "train.batch_size .*<="),
        ({"train": {"threads": 10**5}}, "train", TrainConfig, "train.threads .*<= 4096"),
        ({"train": {"rank_timeout_s": 1e300}}, "train", TrainConfig, "rank_timeout_s .*<= 1000000"),
        ({"train": {"window_mb": 10**20}}, "train", TrainConfig, "train.window_mb"),
        ({"train": {"window_mb": 10**18}}, "train", TrainConfig, "window_mb .*<= 1048576"),
        ({"study": {"control": "x"}}, "study", StudyConfig, r"^study.control = 'x': not one"),
        ({"study": {"control": "rwa"}}, "study", StudyConfig, "did you mean 'raw'"),
        ({"study": {"random_like": ["x"]}}, "study", StudyConfig, "study.random_like = 'x'"),
        ({"study": {"random_like": ["raw"]}}, "study", StudyConfig, "is the control"),
        ({"study": {"repeat_of": "x"}}, "study", StudyConfig, "study.repeat_of = 'x'"),
        ({"study": {"repeats": [2, 2]}}, "study", StudyConfig, "two arms are named 'repeat-2'"),
        ({"study": {"repeats": [1]}}, "study", StudyConfig, "study.repeats"),
        ({"study": {"unique_tokens": 9}}, "study", StudyConfig, "only with study.budget"),
        (
            {"study": {"budget": "unique", "repeats": [2]}},
            "study",
            StudyConfig,
            "repeatedly by definition",
        ),
        ({"study": {"seeds": [1]}}, "study", StudyConfig, "study.seeds"),
        ({"study": {"seeds": [1, 1]}}, "study", StudyConfig, r"^study.seeds = \[1, 1\]: 1 repeats"),
        ({"study": {"arms": {"raw": "True", "a/b": "True"}}}, "study", StudyConfig, "'a/b'"),
        ({"study": {"level": 1.0}}, "study", StudyConfig, "study.level"),
    ],
)
def test_errors_name_the_key_and_the_value(table, section, type_, message):
    with pytest.raises(RecipeError, match=message):
        decode(table, section, type_)


def test_the_budget_is_tokens_rounded_up_unless_steps_are_given():
    config = TrainConfig(sequence_length=10, batch_size=3, tokens=61)
    assert config.total_steps == 3
    assert TrainConfig(steps=7, tokens=1).total_steps == 7


def test_hidden_units_are_a_multiple_of_eight():
    assert ModelConfig(dim=64, heads=2, mlp_ratio=2.7).hidden == 176


def test_command_line_and_records_import_no_torch():
    code = (
        "import sys, trainer.cli, trainer.records, trainer.show; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_of_a_study_can_be_used():
    table = load_recipe(Path(__file__).parents[2] / "examples" / "study-quick.toml")
    assert decode(table, "study", StudyConfig).arm_names == ["raw", "curated", "random-curated"]
    assert decode(table, "train", TrainConfig).eval_every > 0


def test_arms_that_follow_from_others_come_last():
    study = StudyConfig(random_like=["curated"], repeats=[2, 8])
    assert study.arm_names == ["raw", "curated", "random-curated", "repeat-2", "repeat-8"]


@pytest.mark.parametrize("without", [{"spike_sigma": 0.0}, {"checkpoint_every": 0}])
def test_going_back_needs_a_rule_for_spikes_and_checkpoints(without):
    needs = {"spike": "rollback", "spike_sigma": 6.0, "checkpoint_every": 5}
    decode({"train": needs}, "train", TrainConfig)
    with pytest.raises(RecipeError, match="spike 'rollback' with spike_sigma"):
        decode({"train": needs | without}, "train", TrainConfig)


def test_only_a_muon_that_works_in_parts_is_another_one():
    small, large = TrainConfig(), TrainConfig(model=PRESETS["8b"].model)
    assert definitions_of(small)["optimizer"] == DEFINITIONS["optimizer"] == "2"
    assert definitions_of(large)["optimizer"] == "3"
    assert definitions_of(msgspec.structs.replace(large, optimizer="adamw"))["optimizer"] == "2"


def test_shares_that_fill_the_run_are_a_schedule():
    check_train(TrainConfig(warmup=0.6, decay=0.4))
    check_train(TrainConfig(schedule="cosine", warmup=0.8, decay=0.9))  # has no decay


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": 0.8, "decay": 0.9}, "train.warmup = 0.8, train.decay = 0.9"),
        ({"warmup": 1.0}, "train.warmup = 1, train.decay = 0.4"),
        ({"rank_timeout_s": 0.001}, "rank_timeout_s = 0.001: must be at least 2"),
    ],
)
def test_what_a_record_may_hold_and_a_recipe_may_not_ask_for(changes, message):
    config = decode({"train": changes}, "train", TrainConfig)
    with pytest.raises(RecipeError, match=re.escape(message)):
        check_train(config)
