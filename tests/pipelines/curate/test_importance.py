"""The importance weights of a job: trained once, named by their hash, and a column."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.curate import inputs
from pipelines.curate.importance import resolve_importance
from pipelines.curate.job import curate
from pipelines.quality import importance
from pipelines.recipe import curate_recipe, hashed_recipe
from pipelines.runners import JobOptions
from shards.errors import InputError, RecipeError
from tests.pipelines.conftest import write_jsonl

SEA = [{"text": f"the whale and the sea, chapter {n} of the book"} for n in range(5)]
SHOP = [{"text": f"buy a cheap watch number {n} now and pay later"} for n in range(5)]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [*SEA, *SHOP])
    return {
        "inputs": str(tmp_path / "in" / "*"),
        "sea": str(write_jsonl(tmp_path / "sea.jsonl", SEA)),
        "shop": str(write_jsonl(tmp_path / "shop.jsonl", SHOP)),
    }


def recipe_for(files, **tables):
    signals = {"importance": tables}
    return curate_recipe(
        {
            "input": {"paths": [files["inputs"]]},
            "signals": signals,
            "filters": {"keep": {"bookish": "importance_books / gopher_words > 0"}},
        }
    )


def test_a_job_has_a_column_for_each_target(files, tmp_path):
    tables = {
        "books": {"paths": [files["sea"]], "base_paths": [files["shop"]]},
        "ads": {"paths": [files["shop"]]},  # against the inputs
    }
    out = tmp_path / "out"
    manifest, _ = curate(recipe_for(files, **tables), str(out), JobOptions(quiet=True))
    kept, dropped = (pq.read_table(out / role).to_pylist() for role in ("kept", "dropped"))
    assert {row["text"] for row in kept} == {row["text"] for row in SEA}
    assert {row["reason"] for row in dropped} == {"bookish"}
    assert min(row["importance_books"] for row in kept) > 0
    assert max(row["importance_ads"] for row in kept) < 0
    recorded = manifest.content.recipe["signals"]["importance"]
    assert all(own["hash"] and not own["paths"] and not own["model"] for own in recorded.values())
    assert manifest.content.definitions["importance"].startswith("importance-v1")


def test_its_hash_follows_from_content_alone(files, tmp_path):
    def hashed(out, target):
        table = {"paths": [target], "base_paths": [files["shop"]]}
        resolved = resolve_importance(recipe_for(files, books=table), str(tmp_path / out))
        return hashed_recipe(resolved)

    one = hashed("a", files["sea"])
    assert hashed("b", shutil.copy(files["sea"], str(tmp_path / "moved.jsonl"))) == one
    assert hashed("a", files["shop"]) != one
    # As text the same bytes are one document, braces and all.
    assert hashed("a", shutil.copy(files["sea"], str(tmp_path / "moved.txt"))) != one


def test_a_job_reads_no_target_again_whose_hash_it_knows(files, tmp_path, monkeypatch):
    recipe = recipe_for(files, books={"paths": [files["sea"]]})
    for path in (tmp_path / "sea.jsonl", tmp_path / "in" / "a.jsonl"):
        os.utime(path, (1e9, 1e9))  # long settled
    first, _ = curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))
    monkeypatch.setattr(inputs, "_hash", lambda todo, *_: pytest.fail(f"hashes {todo}"))
    again, ran = curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))
    assert (again.dataset_id, ran) == (first.dataset_id, False)


def test_a_target_that_changes_while_it_is_read_is_refused(files, tmp_path, monkeypatch):
    real = importance.count

    def count(texts):
        found = real(texts)
        write_jsonl(tmp_path / "sea.jsonl", SHOP[:2])
        return found

    monkeypatch.setattr(importance, "count", count)
    recipe = recipe_for(files, books={"paths": [files["sea"]], "base_paths": [files["shop"]]})
    with pytest.raises(InputError, match=r"sea\.jsonl: was changed while it was read"):
        resolve_importance(recipe, str(tmp_path / "out"))
    monkeypatch.undo()
    resolve_importance(recipe, str(tmp_path / "out"))


def test_what_cannot_be_a_target_is_refused(files, tmp_path):
    pinned = {"paths": [files["sea"]], "hash": "abab"}
    with pytest.raises(RecipeError, match=r"importance\.books\.hash = 'abab'.* have changed"):
        resolve_importance(recipe_for(files, books=pinned), str(tmp_path / "out"))
    (tmp_path / "empty.jsonl").write_text('{"text": "--"}\n')
    nothing = {"paths": [str(tmp_path / "empty.jsonl")]}
    with pytest.raises(InputError, match=r"signals\.importance\.books\.paths: .*no words"):
        resolve_importance(recipe_for(files, books=nothing), str(tmp_path / "out"))
