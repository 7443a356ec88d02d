"""Inputs and outputs on a store of objects: the same datasets, skipped and repaired alike."""

import io
from collections import Counter

import pytest

from pipelines.curate import job
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from pipelines.tokenize import TokenizeConfig, tokenize
from shards.errors import DatasetError, InputError
from tests.pipelines.conftest import make_documents, write_jsonl
from tests.pipelines.memory_files import OBJECTS, MemoryFileSystem
from tokenizer.config import TokenizerConfig
from tokenizer.job import train_tokenizer

QUIET = JobOptions(quiet=True)


@pytest.fixture
def remote(corpus):
    """The corpus as objects."""
    OBJECTS.clear()
    for path in corpus.iterdir():
        OBJECTS[f"memory://in/{path.name}"] = path.read_bytes()
    yield "memory://in/*"
    OBJECTS.clear()


def recipe(paths):
    return curate_recipe({"input": {"paths": [str(paths)]}, "filters": {"presets": ["gopher"]}})


def test_curate_and_tokenize_give_the_same_ids_as_on_a_disk(remote, corpus, tmp_path):
    there, _ = curate(recipe(remote), "memory://out/docs", QUIET)
    here, _ = curate(recipe(corpus / "*"), str(tmp_path / "docs"), QUIET)
    assert there.dataset_id == here.dataset_id
    assert not [name for name in OBJECTS if "_work" in name or "partial" in name]
    model = tmp_path / "tokenizer"
    train_tokenizer(tmp_path / "docs", model, TokenizerConfig(vocab_size=300))
    ids = {
        tokenize(data, str(model), out, TokenizeConfig(), QUIET)[0].dataset_id
        for data, out in (
            ("memory://out/docs", "memory://out/tokens"),
            (str(tmp_path / "docs"), str(tmp_path / "tokens")),
        )
    }
    assert len(ids) == 1


def test_a_finished_dataset_is_skipped_and_a_broken_one_made_again(remote):
    out = "memory://out/docs"
    first, ran = curate(recipe(remote), out, QUIET)
    assert ran
    assert not curate(recipe(remote), out, QUIET)[1]
    shard = next(name for name in OBJECTS if "/kept/" in name)
    del OBJECTS[shard]
    again, ran = curate(recipe(remote), out, QUIET)
    assert (again.dataset_id, ran) == (first.dataset_id, True)
    assert shard in OBJECTS


def test_fewer_shards_leave_none_of_the_old_ones(remote, tmp_path):
    """Who reads `kept/*.parquet` would read documents twice."""
    documents = make_documents(300, seed=5)
    OBJECTS["memory://in/more.jsonl"] = write_jsonl(tmp_path / "x", documents).read_bytes()
    counts = []
    for size in (1 << 16, 1 << 22):
        table = {"input": {"paths": [remote]}, "output": {"shard_bytes": size}}
        manifest, _ = curate(curate_recipe(table), "memory://out/docs", QUIET)
        shards = {entry.path for entries in manifest.content.shards.values() for entry in entries}
        there = {name[len("memory://out/docs/") :] for name in OBJECTS if "/docs/" in name}
        assert there == {*shards, "manifest.json"}
        counts.append(len(shards))
    assert counts[0] > counts[1]


def test_inputs_in_the_output_folder_are_refused(remote):
    before = dict(OBJECTS)
    with pytest.raises(
        InputError, match=r"memory://in/\S+: lies in the output folder memory://in;"
    ):
        curate(recipe(remote), "memory://in", QUIET)
    assert before == OBJECTS


def test_fragments_of_a_changed_list_are_gone(remote, tmp_path, monkeypatch):
    """Or the next run, with the list as it was, would take up what another one measured."""
    words = tmp_path / "words.txt"
    words.write_text("the\n")
    table = {"input": {"paths": [remote]}, "signals": {"word_lists": {"w": str(words)}}}
    real = job._scan

    def change(*arguments):
        found = real(*arguments)
        assert any("/fragments/" in name for name in OBJECTS)
        words.write_text("and then\n")
        return found

    monkeypatch.setattr(job, "_scan", change)
    with pytest.raises(InputError, match="was changed while it was"):
        curate(curate_recipe(table), "memory://out/docs", QUIET)
    assert not any("/fragments/" in name for name in OBJECTS)


def test_a_folder_without_a_manifest_is_named(remote, tmp_path):
    with pytest.raises(DatasetError, match=r"memory://nowhere: not a dataset"):
        tokenize("memory://nowhere", str(tmp_path), "memory://out/t", TokenizeConfig(), QUIET)


class Counting(io.BytesIO):
    """An object whose read bytes are counted under a name."""

    def __init__(self, data, counts, name):
        super().__init__(data)
        self._counts, self._name = counts, name

    def read(self, size=-1):
        data = super().read(size)
        self._counts[self._name] += len(data)
        return data


def test_pair_reads_no_texts_and_verify_reads_them_once(tmp_path, monkeypatch):
    text = " ".join(f"word{number}" for number in range(9_000))
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": f"{text} {n}"} for n in range(4)])
    OBJECTS.clear()
    OBJECTS["memory://in/in.jsonl"] = path.read_bytes()
    read, labels = Counter(), [""]
    real = job._stage

    def open_counted(_self, path, *_arguments, **_options):
        name = labels[-1] if "/fragments/" in path else path
        return Counting(OBJECTS[path], read, name)

    def stage(label, *arguments, **options):
        labels.append(label)
        real(label, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", open_counted)
    monkeypatch.setattr(job, "_stage", stage)
    manifest, _ = curate(recipe("memory://in/*"), "memory://out/docs", QUIET)
    OBJECTS.clear()
    size = manifest.content.total.bytes_read
    assert size > 300_000
    assert 0 < read["pair"] < size / 20
    assert size <= read["verify"] < size * 1.2
