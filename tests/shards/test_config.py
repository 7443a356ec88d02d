from typing import Annotated, Literal

import msgspec
import pytest

from shards.config import SECTIONS, decode, did_you_mean, load_recipe
from shards.errors import RecipeError


class Near(msgspec.Struct, forbid_unknown_fields=True):
    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.7
    keep: Literal["first", "longest"] = "first"


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    minimum: float | None = None


class Dedup(msgspec.Struct, forbid_unknown_fields=True):
    exact: bool = True
    keep: Annotated[str, msgspec.Meta(pattern=r"^(longest|best:-?[a-z]+)$")] = "longest"
    near: Near | None = None
    paths: list[str] = []
    rules: dict[str, Rule] = {}
    nears: list[Near] = []


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "x"\n[dedup]\nexact = false\n', encoding="utf-8")
    return path


def test_an_absent_table_means_defaults():
    assert decode({}, "dedup", Dedup) == Dedup()
    assert decode({"dedup": {"near": {"threshold": 1}}}, "dedup.near", Near).threshold == 1.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"exakt": 1}, "unknown key dedup.exakt; did you mean 'exact'?"),
        ({"zzz": 1}, "unknown key dedup.zzz; known keys: exact, keep, near, paths, rules, nears"),
        ({"near": {"treshold": 1}}, "unknown key dedup.near.treshold; did you mean 'threshold'?"),
        ({"near": {"threshold": 3}}, "dedup.near.threshold = 3: expected a float <= 1.0"),
        (
            {"near": {"threshold": "x"}},
            "dedup.near.threshold = 'x': expected a float, got a string",
        ),
        ({"near": {"keep": "x"}}, "dedup.near.keep = 'x': expected one of 'first', 'longest'"),
        ({"keep": "shortest"}, "dedup.keep = 'shortest': expected one of 'longest', 'best:…'"),
        ({"keep": 3}, "dedup.keep = 3: expected a string, got an integer"),
        ({"paths": ["a", 1]}, "dedup.paths[1] = 1: expected a string, got an integer"),
        ({"nears": [{}, {"kep": 2}]}, "unknown key dedup.nears[1].kep; did you mean 'keep'?"),
        (
            {"rules": {"a": {"minimum": 1}, "b c": {"minimun": 1}}},
            "unknown key dedup.rules.b c.minimun; did you mean 'minimum'?",
        ),
        (
            {"rules": {"a": {"minimum": 1}, "b": {"minimum": "x"}, "c": {"minimum": 2}}},
            "dedup.rules.b.minimum = 'x': expected `float | null`",
        ),
        (3, "dedup = 3: expected a table, got an integer"),
    ],
)
def test_errors_say_where_and_what(table, message):
    with pytest.raises(RecipeError) as caught:
        decode({"dedup": table}, "dedup", Dedup)
    assert message in str(caught.value)


def test_overrides_are_toml_values_or_bare_strings(recipe):
    overrides = ("dedup.near.threshold=0.5", "dedup.near.keep=longest", 'dedup.paths=["a b"]')
    table = load_recipe(recipe, (*overrides, "input.deep.er=true"))
    assert table["dedup"] == {
        "exact": False,
        "near": {"threshold": 0.5, "keep": "longest"},
        "paths": ["a b"],
    }
    assert table["input"] == {"deep": {"er": True}}


@pytest.mark.parametrize("override", ["dedup.exact", "=3", "dedup..x=3", "dedup.exact.deeper=3"])
def test_malformed_overrides_are_refused(recipe, override):
    with pytest.raises(RecipeError, match="--set "):
        load_recipe(recipe, (override,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nmae = 1", "unknown key 'nmae'; did you mean 'name'"),
        (b"name = ", "not valid TOML"),
        (b"name = '\xff'", "not UTF-8"),
        (b"\xef\xbb\xbfname = 'x'", "begins with a byte order mark"),
        (b"name = 3", "name = 3: expected a string, got an integer"),
        (b"[name]", r"name = \{\}: expected a string, got a table"),
        (b"name = true", "expected a string, got a boolean"),
        (b"name = " + b"[" * 5000 + b"]" * 5000, "nested more than 31 deep"),
        (b"[" + b".".join([b"input"] * 40) + b"]", "nested more than 31 deep"),
        (b"[output]\nshard_bytes = 1" + b"0" * 26, "output.shard_bytes is an integer beyond"),
        (b"[input]\nx = [[1], [-9223372036854775809]]", "input.x is an integer beyond 64 bits"),
        (b"name = " + b"9" * 5000, "not valid TOML: Exceeds the limit"),
    ],
)
def test_files_that_are_no_recipe_are_refused(recipe, content, message):
    recipe.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "min.toml").write_text("")
    with pytest.raises(RecipeError, match=r"min\.toml/x: cannot be read as a recipe: Not a dir"):
        load_recipe(tmp_path / "min.toml" / "x")
    with pytest.raises(RecipeError, match="cannot be read as a recipe: File name too long"):
        load_recipe(tmp_path / ("x" * 1000))


@pytest.mark.parametrize(
    "override",
    [f"input.x={'[' * 5000}{']' * 5000}", f"input.x={'[' * 40}{']' * 40}", "input.x" * 5000 + "=1"],
)
def test_deep_overrides_are_refused(recipe, override):
    with pytest.raises(RecipeError, match=r"--set input\.x.*=…: tables or lists are nested") as no:
        load_recipe(recipe, (override,))
    assert len(str(no.value)) < 200


def test_overrides_may_name_the_recipe(recipe):
    assert load_recipe(recipe, ("name=y",))["name"] == "y"
    with pytest.raises(RecipeError, match="name = 5: expected a string"):
        load_recipe(recipe, ("name=5",))


def test_did_you_mean():
    assert did_you_mean("inptu", SECTIONS) == "; did you mean 'input'?"
    assert did_you_mean("qqqq", ("a", "b"), "columns") == "; known columns: a, b"
