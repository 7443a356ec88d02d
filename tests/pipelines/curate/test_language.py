"""A language is a text column: expressions compare it, no policy sorts by it."""

import pytest

from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import RecipeError
from tests.pipelines.conftest import write_jsonl

ENGLISH = "the metal was weighed and the measure was written into the book of the house " * 4
GERMAN = "das Metall wurde gewogen und das Maß wurde in das Buch des Hauses geschrieben " * 4


def recipe(path, **near):
    return curate_recipe(
        {
            "input": {"paths": [str(path)]},
            "signals": {"language": "fasttext"},
            "filters": {"keep": {"german": "lang == 'de'"}},
            "dedup": {"near": near},
        }
    )


def test_documents_of_another_language_are_dropped_by_name(tmp_path):
    documents = [{"text": text} for text in (ENGLISH, GERMAN)] + [{"id": "no text"}]
    path = write_jsonl(tmp_path / "in.jsonl", documents)
    total = curate(recipe(path), str(tmp_path / "out"), JobOptions(quiet=True))[0].content.total
    assert (total.kept, total.drops) == (1, {"german": 1, "missing_text": 1})


def test_a_text_has_no_best():
    with pytest.raises(RecipeError, match="lang is a text, which has no best"):
        recipe("x.jsonl", keep="best:lang")
