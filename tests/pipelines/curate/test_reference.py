"""The reference of a job: trained once, the same wherever its files lie, named by its hash."""

import random
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.curate.job import curate
from pipelines.curate.reference import resolve_reference, save_reference
from pipelines.quality.reference import decode
from pipelines.recipe import curate_recipe, hashed_recipe
from pipelines.runners import JobOptions
from shards.errors import InputError, RecipeError
from tests.pipelines.conftest import make_documents, write_jsonl
from tests.pipelines.damage import some_damage


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
        resolve_reference(leveled, "unused")
    masked = curate_recipe(
        {"input": {"paths": ["x"]}, "signals": {"mask_pii": True, "reference": {"model": model}}}
    )
    with pytest.raises(RecipeError, match=r"without masks.* are masked by pii-mask-v3"):
        resolve_reference(masked, "unused")


@pytest.mark.parametrize("data", [random.Random(1).randbytes(999), b"\x80", b""])
def test_a_model_that_is_none_is_an_error_with_its_path(tmp_path, data):
    path = tmp_path / "noise.ref"
    path.write_bytes(data)
    recipe = curate_recipe(
        {"input": {"paths": ["x"]}, "signals": {"reference": {"model": str(path)}}}
    )
    with pytest.raises(InputError, match=r"signals\.reference\.model = '.*noise\.ref': not a ref"):
        resolve_reference(recipe, "unused")


def letters(seed, size=900):
    return "".join(random.Random(seed).choices("abcdefghij klmnopqrstuvwxyz", k=size))


@pytest.fixture
def secrets(tmp_path):
    """120 documents that nothing compresses, each with an address."""
    made = [{"text": f"{letters(n)} u{n}@mail.example.org {letters(n, 90)}"} for n in range(120)]
    return write_jsonl(tmp_path / "secrets.jsonl", made)


def test_masked_documents_are_not_measured_against_themselves(secrets, tmp_path):
    recipe = curate_recipe(
        {
            "input": {"paths": [str(secrets)]},
            "signals": {"mask_pii": True, "reference": {"paths": [str(secrets)]}},
            "dedup": {"near": {"enabled": False}},
        }
    )
    out = tmp_path / "out"
    curate(recipe, str(out), JobOptions(quiet=True))
    kept = pq.read_table(out / "kept")
    assert len(kept) == 120
    assert min(kept["marginal_bpb"].to_pylist()) > 3
    path = tmp_path / "saved.ref"
    save_reference(recipe, str(path))
    assert decode(path.read_bytes()).masks == "pii-mask-v3 (pii-v3)"
    assert b"@mail" not in path.read_bytes()


def test_of_a_large_base_ranges_are_taken_by_hash_whatever_the_files_are_called(
    tmp_path, good, monkeypatch
):
    """They were the first of each file, so a sorted corpus had a base of its beginning only."""
    made = [{"text": f"number {n} {letters(n)}"} for n in range(200)]
    files_ = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in files_:
        write_jsonl(path, made)
    monkeypatch.setattr("pipelines.curate.reference.BASE_BYTES", 20_000)
    monkeypatch.setattr("pipelines.curate.reference._RANGE_BYTES", 2_000)
    found = []
    for path in files_:
        recipe = curate_recipe(
            {"input": {"paths": [str(path)]}, "signals": {"reference": {"paths": [str(good)]}}}
        )
        model = resolve_reference(recipe, str(tmp_path / path.stem)).signals.reference.model
        found.append(Path(model).read_bytes())
    assert found[0] == found[1]
    numbers = sorted(map(int, re.findall(rb"number (\d+) ", b"".join(decode(found[0]).windows))))
    assert 18 < len(numbers) < 26
    assert numbers[-1] > 100


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


def test_a_damaged_one_of_an_earlier_run_is_trained_again(corpus, good, tmp_path):
    recipe = recipe_for(corpus, {"paths": [str(good)]})
    first = resolve_reference(recipe, str(tmp_path / "out")).signals.reference
    for name in (first.model, f"{first.model}.json"):
        for seed in range(6):
            path = Path(name)
            path.write_bytes(some_damage(path.read_bytes(), seed))
            assert resolve_reference(recipe, str(tmp_path / "out")).signals.reference == first
