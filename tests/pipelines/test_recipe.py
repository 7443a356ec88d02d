"""The curate job's tables: mistakes are found before a file is opened."""

import msgspec
import pytest

from pipelines.quality import SignalsConfig, known_signals
from pipelines.recipe import curate_recipe, definitions, hashed_recipe
from shards.errors import RecipeError


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"input": {}}, "input.paths is empty"),
        ({"input": {"format": "jsn"}}, "input.format = 'jsn': unknown; did you mean 'jsonl'"),
        ({"input": {"text_field": ""}}, "input.text_field = '': expected .*length >= 1"),
        ({"input": {"text_field": "id"}}, "input.text_field = 'id': also names"),
        ({"dedup": {"near": {"keep": "shortest"}}}, "dedup.near.keep"),
        ({"filters": {"bounds": {"byte": {"min": 1}}}}, "byte"),
    ],
)
def test_a_mistake_is_named_with_its_key(table, words):
    table = {"input": {"paths": ["x.jsonl"]}, **table}
    with pytest.raises(RecipeError, match=words):
        curate_recipe(table)


def test_where_the_files_lie_is_not_hashed():
    plain = [hashed_recipe(curate_recipe({"input": {"paths": [name]}})) for name in ("a", "b")]
    assert plain[0] == plain[1]
    assert "paths" not in plain[0]["input"]


def test_where_a_word_list_lies_is_not_hashed_but_its_name_and_content_are(tmp_path):
    def hashed(name, path, text):
        (tmp_path / path).write_text(text)
        table = {"word_lists": {name: str(tmp_path / path)}}
        recipe = curate_recipe({"input": {"paths": ["a"]}, "signals": table})
        return hashed_recipe(recipe), definitions(recipe.signals)

    first = hashed("bad", "x.txt", "word\n")
    assert hashed("bad", "y.txt", "word\n") == first
    assert hashed("bad", "y.txt", "other\n") != first
    assert hashed("good", "y.txt", "word\n") != first


def test_a_hashed_recipe_names_the_columns_and_no_file(tmp_path):
    (tmp_path / "sites").write_text("example.org\n")
    table = {
        "word_lists": {"bad": str(tmp_path / "sites")},
        "url_lists": {"adult": [str(tmp_path / "sites")]},
        "importance": {"books": {"paths": [str(tmp_path / "sites")]}},
    }
    recipe = curate_recipe({"input": {"paths": ["a"]}, "signals": table})
    plain = hashed_recipe(recipe)["signals"]
    assert str(tmp_path) not in str(plain)
    # The report tells columns' meanings by it.
    assert known_signals(msgspec.convert(plain, SignalsConfig)) == known_signals(recipe.signals)
