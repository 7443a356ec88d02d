import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipelines import chain as chain_module
from pipelines.commands import study as module
from pipelines.commands.study import study_command

RECIPE = "[split]\nvalid_fraction = 0.1\n[tokenize]\ndocuments = 'all'\n[study]\nseeds = [1, 2]\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def ran(monkeypatch):
    """The stages that would have run; none does."""
    stages = []
    monkeypatch.setattr(chain_module, "check_chain", lambda checks: 0)
    monkeypatch.setattr(chain_module, "run_chain", lambda given: stages.extend(given) or 0)
    return stages


def call(*arguments):
    return CliRunner().invoke(study_command, [str(word) for word in arguments])


def test_without_data_the_chain_runs_on_a_corpus_built_here(recipe, ran, tmp_path):
    assert call(recipe, "--out", tmp_path / "out", "--jobs", "3").exit_code == 0
    assert [stage.label for stage in ran] == [
        "corpus", "curate", "tokenizer", "tokenize", "study", "report",
    ]  # fmt: skip
    assert ran[0].arguments == ("corpus", "--out", str(tmp_path / "out/corpus"))
    assert f'input.paths=["{tmp_path}/out/corpus/*.jsonl.zst"]' in ran[1].arguments
    assert ran[4].arguments[-2:] == ("--jobs", "3")
    assert "--jobs" not in ran[3].arguments


def test_a_recipe_that_names_its_input_builds_no_corpus(recipe, ran, tmp_path):
    call("--set", 'input.paths=["x.jsonl"]', recipe, "--out", tmp_path / "out", "--quiet")
    assert ran[0].label == "curate"
    assert ran[0].arguments[-1] == "--quiet"


def test_a_recipe_without_a_study_table_is_studied_by_the_defaults(recipe, ran, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.split("[study]", maxsplit=1)[0])
    call(recipe, "--out", tmp_path / "out")
    assert ran[-2].label == "study"


def test_a_dry_run_checks_and_runs_nothing(recipe, ran, tmp_path):
    result = call(recipe, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "corpus, curate, tokenizer, tokenize, study, report" in result.stdout
    assert ran == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["r.toml", "--data", "d", "--out", "o"], "run"),
        (["run", "r.toml", "--data=d", "--out", "o"], "run"),
        (["--data", "d", "r.toml", "--out", "o"], "run"),
        (["show", "x"], "show"),
        (["compare", "a", "b"], "compare"),
    ],
)
def test_the_trainers_commands_get_what_is_theirs(arguments, name, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "_load", lambda place: loaded.append(place) or study_command)
    call(*arguments)
    assert loaded[0] == module._TRAINER[name]


def test_every_place_of_the_table_holds_a_command():
    code = (
        "from pipelines.commands.study import _TRAINER, _load; import sys;"
        "[_load(place) for place in _TRAINER.values()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_help_names_the_subcommands():
    text = call("--help").stdout
    assert all(word in text for word in ("show", "compare", "--data TOKENS"))
