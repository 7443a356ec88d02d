import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from shards.errors import CorruptError, DatasetError, TrainingError
from tests.trainer.records import study_record
from tests.trainer.test_study_compare import fresh
from tests.trainer.test_study_suggest import record_of
from trainer.records import STUDY, write_record
from trainer.study_cli import (
    compare_command,
    fit_command,
    read_study,
    show_command,
    suggest_command,
)
from trainer.study_records import PredictionResult
from trainer.study_suggest import recipe_text, suggest

ARMS = {"curated": (-0.05, -0.08, -0.02, "arm better")}


@pytest.fixture
def folder(tmp_path):
    write_record(tmp_path / "a" / "runs" / STUDY, study_record(ARMS))
    worse = study_record({"curated": (0.1, 0.05, 0.15, "arm worse")})
    write_record(tmp_path / "b" / STUDY, fresh(worse))
    return tmp_path


def call(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False).stdout


def test_show_prints_what_the_contract_asks_for(folder):
    shown = msgspec.json.decode(call(show_command, folder / "a", "--json"))
    arm = shown["arms"]["curated"]
    assert (arm["bpb"], arm["delta"], arm["ci_low"], arm["ci_high"]) == (2.2, -0.05, -0.08, -0.02)
    assert (arm["verdict"], arm["effective_data_multiplier"]) == ("arm better", 1.25)
    assert shown["baselines"] == {"unigram": 3.0, "bigram": 2.5, "zstd": 2.9}
    assert (arm["unigram"], arm["bigram"]) == (3.0, 2.5)


def test_show_prints_the_sentence_or_the_page(folder):
    assert call(show_command, folder / "a" / "runs") == "curated is better than raw.\n"
    assert call(show_command, folder / "a", "--markdown").startswith("# Study\n")


def test_compare_says_what_was_contradicted(folder):
    said = call(compare_command, folder / "a", folder / "b")
    assert said.endswith("contradicted: curated\n")
    assert "share the seeds" not in said
    same = call(compare_command, folder / "a", folder / "a")
    assert "A and B share the seeds 1, 2 on one dataset: no independent evidence" in same
    assert same.endswith("same runs: curated\n")
    change = msgspec.json.decode(call(compare_command, folder / "a", folder / "b", "--json"))
    assert change["arms"]["curated"]["answer"] == "contradicted"


def test_a_folder_without_a_study_is_an_error(folder):
    with pytest.raises(DatasetError, match="no finished study"):
        read_study(folder)
    (folder / "b" / STUDY).write_text("{}")
    with pytest.raises(CorruptError, match=r"not a StudyRecord.*run the study again .* writes"):
        read_study(folder / "b")


def test_a_study_whose_runs_are_being_replaced_is_not_shown(folder):
    (folder / "b" / STUDY).rename(folder / "b" / f"before-{STUDY}")
    with pytest.raises(DatasetError, match=r"before-study\.json is of one whose runs another"):
        read_study(folder / "b")


def test_suggest_writes_a_recipe_and_says_what_it_foretells(tmp_path):
    record = record_of(np.array([0.2, -0.3, 0.1]))
    write_record(tmp_path / STUDY, record)
    recipe = tmp_path / "next.toml"
    said = call(suggest_command, tmp_path, "--out", recipe, "--json")
    found = msgspec.json.decode(said)
    assert found["seeds"] == [3, 4]
    assert found["low"] < found["delta"] < found["high"]
    assert recipe.read_text() == recipe_text(record, suggest(record))
    assert call(suggest_command, tmp_path).startswith(recipe.read_text())


def test_an_error_of_suggest_names_the_folder(folder):
    with pytest.raises(TrainingError, match="b: the record does not say of which cells"):
        call(suggest_command, folder / "b")


def test_fit_needs_three_sizes(folder):
    with pytest.raises(TrainingError, match=r"have 1 model sizes \(1,000 parameters\)"):
        call(fit_command, folder / "a", folder / "b")


def test_a_prediction_is_shown_with_the_answer(tmp_path):
    told = PredictionResult(
        arm="curated", predicted=-0.04, low=-0.07, high=-0.01, measured=-0.05,
        interval=(-0.08, -0.02), same_dataset=True, held=True,
    )  # fmt: skip
    write_record(tmp_path / STUDY, study_record(ARMS, prediction=told))
    assert call(show_command, tmp_path).endswith("on fresh seeds: the prediction held.\n")
