"""`assay curate --dry-run` checks all that a job reads before its corpus, and writes nothing."""

import json

import pytest
from click.testing import CliRunner

from pipelines.commands.curate import curate_command
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import CorruptError, InputError, RecipeError

ITEM = "how many grains of fine silver does a bullion of thirteen ounces hold"


@pytest.fixture
def dry_run(corpus, tmp_path):
    def call(dedup):
        recipe = tmp_path / "recipe.toml"
        paths = json.dumps([str(corpus / "*")])
        recipe.write_text(f"[input]\npaths = {paths}\n[dedup]\n{dedup}\n")
        out = tmp_path / "out"
        result = CliRunner().invoke(
            curate_command, [str(recipe), "--out", str(out), "--dry-run"], catch_exceptions=True
        )
        assert not out.exists()
        if result.exception:
            raise result.exception
        return result

    return call


@pytest.fixture
def earlier(corpus, tmp_path):
    """A dataset with an index."""
    recipe = curate_recipe(
        {
            "input": {"paths": [str(corpus / "one.jsonl")]},
            "dedup": {"index": True, "near": {"keep": "earliest"}},
        }
    )
    curate(recipe, str(tmp_path / "first"), JobOptions(quiet=True))
    return tmp_path / "first"


def test_it_says_what_there_is(dry_run, earlier, tmp_path):
    items = tmp_path / "quiz.jsonl"
    items.write_text("".join(json.dumps({"text": text}) + "\n" for text in (ITEM, "too short")))
    result = dry_run(
        f'against = ["{earlier}"]\nnear = {{ keep = "earliest" }}\n'
        f'contamination = {{ sets = {{ "quiz[1]" = ["{items}"] }} }}'
    )
    assert "2 input file(s)" in result.stderr
    assert "evaluation set quiz[1]: 2 items, 1 too short" in result.stderr
    assert "held against 1 dataset(s), 60 documents; nothing run" in result.stderr
    assert json.loads(result.stdout)["dedup"]["near"]["keep"] == "earliest"


def test_an_evaluation_set_that_cannot_be_read_is_found(dry_run, tmp_path):
    items = tmp_path / "quiz.jsonl"
    for content, message in (
        (None, "no such file"),
        ('{"text": broken\n', "the record at 0 cannot be read"),
        ('{"text": "too short"}\n', "has no item of at least"),
    ):
        if content:
            items.write_text(content)
        with pytest.raises(InputError, match=message):
            dry_run(f'contamination = {{ sets = {{ quiz = ["{items}"] }} }}')


def test_a_dataset_that_cannot_be_held_against_is_found(dry_run, earlier, tmp_path):
    near = 'near = { keep = "earliest"%s }'
    with pytest.raises(RecipeError, match="no such folder"):
        dry_run(f'against = ["{tmp_path / "nowhere"}"]\n{near % ""}')
    with pytest.raises(RecipeError, match=r"made with another dedup\.near\.ngram"):
        dry_run(f'against = ["{earlier}"]\n{near % ", ngram = 4"}')
    next((earlier / "index").iterdir()).unlink()
    with pytest.raises(CorruptError, match="is missing"):
        dry_run(f'against = ["{earlier}"]\n{near % ""}')
