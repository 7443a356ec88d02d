"""The reference of a job: trained once, the same wherever its files lie, named by its hash."""

import random
import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.curate.job import curate
from pipelines.curate.reference import load_reference, resolve_reference, save_reference
from pipelines.recipe import curate_recipe, hashed_recipe
from pipelines.runners import JobOptions
from shards.errors import RecipeError
from tests.pipelines.conftest import make_documents, write_jsonl


@pytest.fixture
def good(tmp_path):
    return write_jsonl(tmp_path / "good.jsonl", make_documents(60, seed=7))


def recipe_for(corpus, reference, **tables):
    return curate_recipe(
        {
            "input": {"paths": [str(corpus / "*")]},
            "signals": {"reference": reference},
            "output": {"shard_bytes": 1 << 16},
            **tables,
        }
    )


def test_a_reference_gives_columns_that_filters_can_use(corpus, good, tmp_path):
    noise = "".join(random.Random(3).choices("qxzjvk#%{}~^0189", k=900))
    write_jsonl(corpus / "noise.jsonl", [{"text": noise}])
    tables = {
        "filters": {
            "bounds": {"common_share": {"max": 1}},
            "keep": {"prose": "ref_z < 20 or zstd_z < 0"},
        }
    }
    recipe = recipe_for(corpus, {"paths": [str(good)]}, **tables)
    out = tmp_path / "out"
    manifest, _ = curate(recipe, str(out), JobOptions(quiet=True))
    assert manifest.content.total.drops["prose"] == 1
    assert manifest.content.definitions["ngram"].startswith("byte-ngram")
    assert set(manifest.content.recipe["signals"]["reference"]) == {"hash"}
    kept = pq.read_table(out / "kept")
    assert all(0 <= score < 20 for score in kept["junk_score"].to_pylist())
    (row,) = [row for row in pq.read_table(out / "dropped").to_pylist() if row["text"] == noise]
    assert (row["reason"], row["value"], row["threshold"]) == ("prose", None, None)
    assert curate(recipe, str(out), JobOptions(quiet=True))[1] is False


def test_its_hash_follows_from_content_and_names_the_recipe(corpus, good, tmp_path):
    one = resolve_reference(recipe_for(corpus, {"paths": [str(good)]}), str(tmp_path / "a"))
    moved = shutil.copy(good, tmp_path / "moved.jsonl")
    other = resolve_reference(recipe_for(corpus, {"paths": [str(moved)]}), str(tmp_path / "b"))
    assert hashed_recipe(one) == hashed_recipe(other)
    changed = write_jsonl(tmp_path / "changed.jsonl", make_documents(61, seed=7))
    third = resolve_reference(recipe_for(corpus, {"paths": [str(changed)]}), str(tmp_path / "a"))
    assert hashed_recipe(third) != hashed_recipe(one)
    path = str(tmp_path / "saved.ref")
    digest = save_reference(recipe_for(corpus, {"paths": [str(good)]}), path)
    saved = recipe_for(corpus, {"model": path, "hash": digest})
    assert hashed_recipe(resolve_reference(saved, "unused")) == hashed_recipe(one)


def test_what_is_not_the_pinned_reference_is_refused(corpus, good, tmp_path):
    pinned = recipe_for(corpus, {"paths": [str(good)], "hash": "ab" * 16})
    with pytest.raises(RecipeError, match=r"signals\.reference\.hash = 'abab.*have changed"):
        resolve_reference(pinned, str(tmp_path / "out"))
    found = resolve_reference(recipe_for(corpus, {"paths": [str(good)]}), str(tmp_path / "out"))
    model = found.signals.reference.model
    leveled = curate_recipe(
        {"input": {"paths": ["x"]}, "signals": {"zstd_level": 5, "reference": {"model": model}}}
    )
    with pytest.raises(RecipeError, match="trained for level 3"):
        load_reference(resolve_reference(leveled, "unused").signals)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "name either paths"),
        ({"paths": ["a"], "model": "b"}, "name either paths"),
        ({"model": "b", "base_paths": ["a"]}, "has its base already"),
    ],
)
def test_a_table_with_no_or_two_meanings_is_refused(corpus, reference, message):
    with pytest.raises(RecipeError, match=message):
        recipe_for(corpus, reference)
    with pytest.raises(RecipeError, match="ref_bpb: no such signal"):
        curate_recipe({"input": {"paths": ["x"]}, "filters": {"bounds": {"ref_bpb": {"max": 2}}}})
