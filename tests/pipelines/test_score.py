"""The score job on two small token shards, with a model that is a script, and once a real run."""

import json
import os
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipelines import score as job
from pipelines import score_shards
from pipelines.commands.score import score_command
from pipelines.reproduce import reproduce
from pipelines.runners import JobOptions, RunnerOptions
from pipelines.score import ScoringRun, check_tokenizer, score
from pipelines.score_shards import ModelProcess, slices
from shards.cli import verify_command
from shards.dataset import TokenDataset
from shards.errors import CorruptError, DatasetError, PlatformError, RecipeError, TrainingError
from shards.manifest import MANIFEST, encode_manifest, new_manifest, read_manifest
from shards.verify import verify
from tests.trainer.conftest import TINY, counting_table, write_dataset
from trainer.data import read_documents
from trainer.loop import train
from trainer.progress import Reporter

QUIET = JobOptions(quiet=True)

FAKE = """
import sys
import numpy as np, pyarrow as pa
open(sys.argv[1], "a").write("started\\n")
with pa.ipc.open_stream(sys.stdin.buffer) as stream:
    for batch in stream:
        open(sys.argv[1], "a").write(f"{len(batch)}\\n")
        lengths = np.diff(np.asarray(batch.column("tokens").offsets))
        found = np.asarray(batch.column("bytes")) + lengths
        sys.stdout.buffer.write(found.astype(np.float32).tobytes())
        sys.stdout.buffer.flush()
"""
"""A worker whose scores are bytes + tokens; it notes how many documents it was sent."""


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "tokens", counting_table(40, 0), counting_table(30, 1))


@pytest.fixture
def run(tmp_path, data):
    """A run's record, as far as the job reads it."""
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "run_key": "k",
        "dataset_id": read_manifest(data).dataset_id,
        "checkpoint_sha256": "c",
        "device": "cpu",
        "config": {"sequence_length": 16, "threads": 1},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Put the script in the place of the trainer; return the file of what it notes."""
    script, path = tmp_path / "fake.py", tmp_path / "notes"
    script.write_text(FAKE)
    command = [sys.executable, str(script), str(path)]
    monkeypatch.setattr(job, "worker_command", lambda run, device: command)
    return path


def scores(folder, column="lm_bpb"):
    dataset = TokenDataset.open(folder)
    return [dataset.shard(i).batch.column(column).to_numpy() for i in range(len(dataset.entries))]


def test_each_document_has_its_score_and_all_else_stays(data, run, notes, tmp_path, monkeypatch):
    monkeypatch.setattr(score_shards, "SLICE_TOKENS", 200)
    out = tmp_path / "out"
    manifest, ran = score(str(data), str(run), str(out), QUIET)
    assert ran
    assert verify(out) == verify(data)  # the made-up dataset's counts do not add up in either
    before, after = TokenDataset.open(data), TokenDataset.open(out)
    for index in range(2):
        old, new = before.shard(index), after.shard(index)
        assert new.batch.schema.names == [*old.batch.schema.names[:-1], "lm_bpb", "tokens"]
        for name in old.batch.schema.names:
            assert new.batch.column(name).equals(old.batch.column(name))
        expected = np.asarray(old.batch.column("bytes")) + np.diff(old.offsets)
        assert np.array_equal(scores(out)[index], expected.astype(np.float32))
    assert manifest.content.parents == read_manifest(data).content.parents
    assert manifest.content.recipe["score"]["lm_bpb"]["data"] == before.dataset_id
    total = sum(len(shard) for shard in scores(out))
    assert after.select("lm_bpb < 30").documents == sum((s < 30).sum() for s in scores(out)) < total
    words = notes.read_text().split()
    assert words[0] == "started"
    assert words.count("started") == 1  # one process for all shards of a worker
    assert sum(map(int, words[1:])) == total
    assert len(words) > 6
    assert [path.name for path in out.iterdir() if path.name not in {MANIFEST, "tokens"}] == []


def test_worker_processes_give_the_same_dataset(data, run, notes, tmp_path):
    alone, _ = score(str(data), str(run), str(tmp_path / "a"), QUIET)
    two = JobOptions(RunnerOptions(workers=2), quiet=True)
    assert score(str(data), str(run), str(tmp_path / "b"), two)[0].content == alone.content


def test_a_finished_job_is_skipped_and_a_broken_one_goes_on(data, run, notes, tmp_path):
    out = tmp_path / "out"
    options = JobOptions(quiet=True, keep_work=True)
    whole, _ = score(str(data), str(run), str(out), options)
    notes.unlink()
    same, ran = score(str(data), str(run), str(out), options)
    assert (same.content, ran) == (whole.content, False)
    assert not notes.exists()
    (out / MANIFEST).unlink()
    damaged = out / whole.content.shards["tokens"][1].path
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again, ran = score(str(data), str(run), str(out), options)
    assert ran
    assert again.content == whole.content
    assert notes.read_text().split() == ["started", "30"]


def test_a_second_model_adds_its_column(data, run, notes, tmp_path):
    first = score(str(data), str(run), str(tmp_path / "a"), QUIET)[0]
    with pytest.raises(RecipeError, match="--column"):
        score(str(tmp_path / "a"), str(run), str(tmp_path / "b"), QUIET)
    second = score(str(tmp_path / "a"), str(run), str(tmp_path / "b"), QUIET, column="late_bpb")[0]
    assert list(second.content.recipe["score"]) == ["lm_bpb", "late_bpb"]
    assert second.content.recipe["score"]["late_bpb"]["data"] == first.dataset_id
    assert TokenDataset.open(tmp_path / "b").select("late_bpb == lm_bpb").documents == 70


def test_the_last_score_is_reproduced_and_a_changed_run_is_named(data, run, notes, tmp_path):
    a, b, c = (str(tmp_path / name) for name in "abc")
    score(str(data), str(run), a, QUIET)
    second = score(a, str(run), b, QUIET, column="late_bpb")[0]
    assert reproduce(b, c, QUIET) == (second.dataset_id, second.dataset_id)
    assert reproduce(a, str(tmp_path / "d"), QUIET) == (read_manifest(a).dataset_id,) * 2
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"checkpoint_sha256": "other"}))
    with pytest.raises(
        DatasetError, match=r"checkpoint_sha256 is 'other', but .* with 'c'; restor"
    ):
        reproduce(b, str(tmp_path / "e"), QUIET)
    score(str(data), str(run), a, QUIET)
    with pytest.raises(DatasetError, match=r"which is not the one that .*b is the scores of"):
        reproduce(b, str(tmp_path / "e"), QUIET)


def test_a_damaged_scored_shard_names_the_command_that_made_it(data, run, notes, tmp_path):
    """`assay tokenize` would overwrite the scores."""
    out = tmp_path / "out"
    score(str(data), str(run), str(out), QUIET)
    path = out / "tokens" / "00000-of-00002.arrow"
    raw = bytearray(path.read_bytes())
    raw[-200] ^= 1
    path.write_bytes(raw)
    again = r"delete it and run `assay score` again"
    with pytest.raises(CorruptError, match=again):
        TokenDataset.open(out).select("lm_bpb < 1")
    with pytest.raises(CorruptError, match=again):
        score(str(out), str(run), str(tmp_path / "more"), QUIET, column="late_bpb")
    found = CliRunner().invoke(verify_command, [str(out)])
    assert found.exit_code == 1
    assert "`assay score`" in " ".join(found.output.split())
    path.unlink()
    with pytest.raises(
        DatasetError, match="shard is missing; make the dataset again with `assay sc"
    ):
        TokenDataset.open(out)


def test_a_damaged_shard_stops_the_job(data, run, notes, tmp_path):
    path = data / "tokens" / "00001-of-00002.arrow"
    raw = bytearray(path.read_bytes())
    raw[-200] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError, match=r"00001-of-00002\.arrow: block 0"):
        score(str(data), str(run), str(tmp_path / "out"), QUIET)
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("sys.exit('TrainingError: no number')", TrainingError, "^no number$"),
        ("sys.exit('KeyError: x')", PlatformError, "exit code 1: KeyError: x"),
        ("os.kill(os.getpid(), 9)", PlatformError, "exit code -9: it said nothing"),
    ],
)
def test_what_stops_the_model_is_said(code, error, text):
    batch = pa.record_batch({"bytes": [1], "tokens": [[2]]})
    process = ModelProcess([sys.executable, "-c", f"import os, sys; {code}"], batch.schema)
    with pytest.raises(error, match=text):
        process.score(batch)
    process.close()


def all_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("first", [40, 0])
def test_a_refused_or_failed_job_leaves_the_dataset_that_was_there(
    first, run, notes, tmp_path, monkeypatch
):
    """Also where the first shard holds no document that would show that the model is broken."""
    tables = counting_table(40, 0)[:first], counting_table(30, 1)
    data, out = write_dataset(tmp_path / "tokens", *tables), tmp_path / "out"
    record = json.loads((run / "run.json").read_text())
    record |= {"dataset_id": read_manifest(data).dataset_id}
    (run / "run.json").write_text(json.dumps(record))
    score(str(data), str(run), str(out), QUIET)
    before = all_bytes(out)
    with pytest.raises(RecipeError, match="a column 'bytes' already"):
        score(str(data), str(run), str(out), QUIET, column="bytes")
    broken = [sys.executable, "-c", "import sys; sys.exit('TrainingError: no GPU')"]
    monkeypatch.setattr(job, "worker_command", lambda run, device: broken)
    with pytest.raises(TrainingError, match="no GPU"):
        score(str(data), str(run), str(out), QUIET, column="other_bpb")
    assert MANIFEST in before
    kept = all_bytes(out)
    assert {name: kept.get(name) for name in before} == before
    verify(out)


@given(st.lists(st.integers(1, 300_000), max_size=12))
def test_slices_follow_from_the_documents_alone(lengths):
    offsets = np.cumsum([0, *lengths])
    found = slices(offsets)
    assert [row for first, end in found for row in range(first, end)] == list(range(len(lengths)))
    for first, end in found:
        assert end == first + 1 or offsets[end] - offsets[first] <= score_shards.SLICE_TOKENS


def with_tokenizer(data, sha256):
    content = read_manifest(data).content
    content.tokenizer = {**content.tokenizer, "sha256": sha256}
    return new_manifest(content, stage_key="", run={})


def test_the_tokenizers_must_be_one(data, run, notes, tmp_path):
    here = read_manifest(data)
    record = ScoringRun("k", "elsewhere", "c", "cpu", job.Settings(16))
    with pytest.raises(DatasetError, match="--run-data where that dataset is"):
        check_tokenizer(here, record, "data", "run", None)
    with pytest.raises(DatasetError, match="--run-data holds dataset"):
        check_tokenizer(here, record, "data", "run", here)
    for sha256, text in (("ab" * 32, None), ("cd" * 32, "tokenizer abab")):
        other = with_tokenizer(data, sha256)
        learned = ScoringRun("k", other.dataset_id, "c", "cpu", job.Settings(16))
        if text is None:
            check_tokenizer(here, learned, "data", "run", other)
        else:
            with pytest.raises(DatasetError, match=text):
                check_tokenizer(here, learned, "data", "run", other)
            stated = ScoringRun("k", "x", "c", "cpu", job.Settings(16), {}, sha256)
            with pytest.raises(DatasetError, match=text):
                check_tokenizer(here, stated, "data", "run", None)


def test_what_cannot_be_scored_is_refused(data, run, tmp_path):
    with pytest.raises(RecipeError, match="is the data itself"):
        score(str(data), str(run), f"{data}/.", QUIET)
    with pytest.raises(RecipeError, match="--column 'Lm bpb'"):
        score(str(data), str(run), str(tmp_path / "o"), QUIET, column="Lm bpb")
    with pytest.raises(DatasetError, match=r"no run\.json"):
        score(str(data), str(tmp_path), str(tmp_path / "o"), QUIET)
    content = read_manifest(data).content
    content.kind = "documents"
    (data / MANIFEST).write_bytes(encode_manifest(new_manifest(content, stage_key="", run={})))
    with pytest.raises(DatasetError, match="assay tokenize"):
        score(str(data), str(run), str(tmp_path / "o"), QUIET)


def test_the_command_scores_with_a_real_run(data, tmp_path):
    """The validation documents cost what the run's own validation found."""
    dataset = TokenDataset.open(data)
    valid = read_documents(dataset, "split == 'valid'", TINY.eval_tokens)
    folder, out = tmp_path / "real", tmp_path / "out"
    view = dataset.select("split == 'train'")
    record = train(view, valid, TINY, folder, Reporter(quiet=True))
    words = ["--data", str(data), "--run", str(folder), "--out", str(out), "--quiet"]
    result = CliRunner().invoke(score_command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "lm_bpb" in result.output
    everything = TokenDataset.open(out)
    all_valid = read_documents(dataset, "split == 'valid'")
    assert len(all_valid) == len(valid)
    # On other data of that tokenizer, with no word about what the run read.
    twenty = counting_table(20, 3)
    other = write_dataset(tmp_path / "other", twenty[:0], twenty)
    words = ["--data", str(other), "--run", str(folder), "--out", str(tmp_path / "o"), "--quiet"]
    assert CliRunner().invoke(score_command, words, catch_exceptions=False).exit_code == 0
    found = np.concatenate(
        [
            everything.shard(i)
            .batch.column("lm_bpb")
            .to_numpy()[np.asarray(everything.shard(i).batch.column("split")) == "valid"]
            for i in range(2)
        ]
    )
    bits = found.astype(np.float64) @ all_valid.bytes
    assert bits / all_valid.bytes.sum() == pytest.approx(record.bpb, rel=1e-5)
    assert os.environ.get("OMP_NUM_THREADS") != "1"  # the worker's settings stay the worker's
