"""A dataset is made again from its manifest alone."""

import msgspec
import pytest

from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.reproduce import reproduce
from pipelines.runners import JobOptions
from shards.errors import DatasetError, InputError, RecipeError
from shards.manifest import MANIFEST, encode_manifest, new_manifest, read_manifest
from tests.pipelines.conftest import write_jsonl

QUIET = JobOptions(quiet=True)


@pytest.fixture
def dataset(corpus, tmp_path):
    table = {
        "input": {"paths": [str(corpus / "two*"), str(corpus / "one.jsonl")]},
        "filters": {"presets": ["gopher"]},
        "dedup": {"near": {"keep": "earliest", "threshold": 0.7}},
    }
    curate(curate_recipe(table), str(tmp_path / "out"), QUIET)
    return tmp_path / "out"


def test_the_same_id_comes_out(dataset, tmp_path):
    stated, found = reproduce(str(dataset), str(tmp_path / "again"), QUIET)
    assert stated == found == read_manifest(tmp_path / "again").dataset_id


def test_a_changed_input_is_named(dataset, corpus, tmp_path):
    with (corpus / "one.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(InputError, match=r"one\.jsonl: is not the file that was read"):
        reproduce(str(dataset), str(tmp_path / "again"), QUIET)
    (corpus / "one.jsonl").unlink()
    with pytest.raises(InputError, match=r"one\.jsonl: no such file"):
        reproduce(str(dataset), str(tmp_path / "again"), QUIET)


def test_an_input_that_became_a_copy_of_another_is_named(dataset, corpus, tmp_path):
    (corpus / "one.jsonl").write_bytes(next(corpus.glob("two*")).read_bytes())
    with pytest.raises(InputError, match=r"one\.jsonl: is not the file that was read"):
        reproduce(str(dataset), str(tmp_path / "again"), QUIET)


def test_a_list_or_a_model_that_is_another_now_is_named(corpus, tmp_path):
    (tmp_path / "bad").write_text("ore\n")
    write_jsonl(tmp_path / "good.jsonl", [{"text": "silver and lead in the cupel"}])
    table = {
        "input": {"paths": [str(corpus / "one.jsonl")]},
        "signals": {
            "word_lists": {"bad": str(tmp_path / "bad")},
            "importance": {"good": {"paths": [str(tmp_path / "good.jsonl")]}},
        },
    }
    dataset = str(tmp_path / "out")
    curate(curate_recipe(table), dataset, QUIET)
    assert len(set(reproduce(dataset, str(tmp_path / "again"), QUIET))) == 1
    (tmp_path / "bad").write_text("silver\n")
    with pytest.raises(InputError, match=r"word_list bad .*, whose file is now .*; restore it"):
        reproduce(dataset, str(tmp_path / "other"), QUIET)
    (tmp_path / "bad").write_text("ore\n")
    write_jsonl(tmp_path / "good.jsonl", [{"text": "something else"}])
    with pytest.raises(RecipeError, match=r"signals\.importance\.good\.hash = .* have changed"):
        reproduce(dataset, str(tmp_path / "other"), QUIET)


def test_another_version_of_a_definition_is_named(dataset, tmp_path):
    old = read_manifest(dataset)
    content = msgspec.structs.replace(
        old.content, definitions={**old.content.definitions, "x": "1"}
    )
    changed = new_manifest(content, stage_key=old.stage_key, run=old.run)
    (dataset / MANIFEST).write_bytes(encode_manifest(changed))
    with pytest.raises(DatasetError, match="was made with x '1'"):
        reproduce(str(dataset), str(tmp_path / "again"), QUIET)


def test_a_link_to_itself_is_no_place_for_it(dataset, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RecipeError, match="loop"):
        reproduce(str(dataset), str(tmp_path / "loop"), QUIET)


def test_the_dataset_itself_is_no_place_for_it(dataset):
    with pytest.raises(DatasetError, match="is the dataset itself"):
        reproduce(str(dataset), str(dataset), QUIET)
