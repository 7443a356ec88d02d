"""The tokenize job on a small documents dataset of two shards, with a ledger."""

import argparse
import inspect
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from click.testing import CliRunner

from pipelines import token_shards
from pipelines.commands.tokenize import tokenize_command
from pipelines.runners import JobOptions, RunnerOptions
from pipelines.tokenize import TokenizeConfig, check_counts, tokenize
from shards.dataset import TokenDataset
from shards.errors import CorruptError, DatasetError, RecipeError, ReconcileError
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest, read_manifest
from shards.tokens import open_token_shard, shard_entry
from shards.verify import verify
from tokenizer.config import TokenizerConfig
from tokenizer.folder import MODEL
from tokenizer.model import Tokenizer
from tokenizer.train import train_model

ALL = TokenizeConfig(documents="all")
KEPT = TokenizeConfig(documents="kept")
QUIET = JobOptions(quiet=True)

KEPT_DOCUMENTS = [
    [("code", "def f():\n    return 1\n"), ("web", "Some text \u2581 and more.")],
    [("code", ""), ("web", "Ünïcödé")],
]
DROPPED_DOCUMENTS = [
    [("web", "Some text", "too_short"), ("junk", "\0\0", "too_short"), ("junk", None, "bad_utf8")],
    [],
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tokenizer's model file."""
    path = tmp_path_factory.mktemp("tokenizer") / MODEL
    texts = inspect.getsource(argparse).split("\n\n\n")
    path.write_bytes(train_model(texts, TokenizerConfig(vocab_size=512)))
    return str(path)


def parquet(rows, role, **more):
    ids = [xxhash.xxh3_128_digest(repr(row).encode()) for row in rows]
    columns = {
        "doc_id": pa.array(ids, pa.binary(16)),
        "source": pa.array([row[0] for row in rows], pa.string()),
        "text": pa.array([row[1] for row in rows], pa.large_string()),
        "split": pa.array(["train"] * len(rows), pa.string()),
    }
    if role == "dropped":
        columns["reason"] = pa.array([row[2] for row in rows], pa.string())
    columns["zstd_bpb"] = pa.array([1.0] * len(rows), pa.float32())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns | more), sink)
    return sink.getvalue()


@pytest.fixture
def data(tmp_path):
    """The documents dataset; its counts are written out by hand."""
    shards = {"kept": [], "dropped": []}
    for role, lists in (("kept", KEPT_DOCUMENTS), ("dropped", DROPPED_DOCUMENTS)):
        for number, rows in enumerate(lists):
            name = f"{role}/{number:05d}-of-00002.parquet"
            raw = parquet(rows, role)
            (tmp_path / "data" / role).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(raw)
            shards[role].append(shard_entry(name, raw, documents=len(rows)))
    sources = {
        "code": Counts(read=2, kept=2, bytes_read=22, bytes_kept=22),
        "junk": Counts(read=2, dropped=2, bytes_read=2, drops={"too_short": 1, "bad_utf8": 1}),
        "web": Counts(
            read=3, kept=2, dropped=1, bytes_read=43, bytes_kept=34, drops={"too_short": 1}
        ),
    }
    content = Content(kind="documents", shards=shards, total=Counts(), sources=sources)
    manifest = new_manifest(content, stage_key="", run={})
    (tmp_path / "data" / MANIFEST).write_bytes(encode_manifest(manifest))
    return tmp_path / "data"


def rewrite(data, **changes):
    content = read_manifest(data).content
    for name, value in changes.items():
        setattr(content, name, value)
    (data / MANIFEST).write_bytes(encode_manifest(new_manifest(content, stage_key="", run={})))


def texts_of(out, model):
    """Decode every document of a tokens dataset: shard by shard (source, dropped, text)."""
    tokenizer, manifest = Tokenizer.load(model), read_manifest(out)
    sources = sorted(manifest.content.sources)
    found = []
    for entry in manifest.content.shards["tokens"]:
        shard = open_token_shard(out / entry.path)
        columns = shard.batch.to_pydict()
        assert [len(t.encode()) for t in map(tokenizer.decode, columns["tokens"])] == columns[
            "bytes"
        ]
        found.append(
            [
                (sources[source], dropped, tokenizer.decode(ids))
                for source, dropped, ids in zip(
                    columns["source_id"], columns["dropped"], columns["tokens"], strict=True
                )
            ]
        )
    return found


def test_kept_documents_come_back_in_order(data, model, tmp_path):
    manifest, ran = tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)
    assert ran
    assert texts_of(tmp_path / "out", model) == [
        [(source, "", text) for source, text in rows] for rows in KEPT_DOCUMENTS
    ]
    assert verify(tmp_path / "out") == []
    content = manifest.content
    assert content == read_manifest(tmp_path / "out").content
    assert content.parents == [read_manifest(data).dataset_id]
    assert content.tokenizer == Tokenizer.load(model).facts
    assert content.sources["junk"] == Counts()
    assert content.total.tokens == sum(c.tokens for c in content.sources.values())
    assert content.stats["sources"]["code"] == 22 / content.sources["code"].tokens
    assert [
        p.name for p in (tmp_path / "out").iterdir() if p.name not in {MANIFEST, "tokens"}
    ] == []


def test_all_takes_dropped_documents_with_text_after_the_kept_ones(data, model, tmp_path):
    manifest, _ = tokenize(str(data), model, str(tmp_path / "out"), ALL, QUIET)
    first, second = texts_of(tmp_path / "out", model)
    assert first == [
        *[(source, "", text) for source, text in KEPT_DOCUMENTS[0]],
        ("web", "too_short", "Some text"),
        ("junk", "too_short", "\0\0"),
    ]
    assert second == [(source, "", text) for source, text in KEPT_DOCUMENTS[1]]
    assert verify(tmp_path / "out") == []
    total = manifest.content.total
    assert (total.read, total.kept, total.dropped) == (7, 4, 3)
    assert total.drops == {"too_short": 2, "bad_utf8": 1}
    assert manifest.content.stats["without_text"] == 1
    assert manifest.content.stats["documents"] == 6


def test_worker_processes_give_the_same_bytes(data, model, tmp_path):
    one, _ = tokenize(str(data), model, str(tmp_path / "one"), ALL, QUIET)
    options = JobOptions(RunnerOptions(workers=2), quiet=True)
    two, _ = tokenize(str(data), model, str(tmp_path / "two"), ALL, options)
    assert one.dataset_id == two.dataset_id


def test_is_skipped_until_something_that_matters_changes(data, model, tmp_path):
    out = str(tmp_path / "out")
    before, _ = tokenize(str(data), model, out, ALL, QUIET)
    again, ran = tokenize(str(data), model, out, ALL, QUIET)
    assert not ran
    assert again.dataset_id == before.dataset_id
    after, ran = tokenize(str(data), model, out, KEPT, QUIET)
    assert ran
    assert after.dataset_id != before.dataset_id


def test_resumes_with_the_shards_that_are_missing_or_damaged(data, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = JobOptions(quiet=True, keep_work=True)
    whole, _ = tokenize(str(data), model, str(out), ALL, options)
    (out / MANIFEST).unlink()
    damaged = out / whole.content.shards["tokens"][1].path
    damaged.write_bytes(damaged.read_bytes()[:-1])
    read = []
    read_documents = token_shards.read_documents
    monkeypatch.setattr(
        token_shards, "read_documents", lambda raw, e: read.append(e.path) or read_documents(raw, e)
    )
    again, ran = tokenize(str(data), model, str(out), ALL, options)
    assert ran
    assert again.content == whole.content
    assert read == ["kept/00001-of-00002.parquet", "dropped/00001-of-00002.parquet"]


def test_a_damaged_document_shard_stops_the_job(data, model, tmp_path):
    path = data / "kept" / "00001-of-00002.parquet"
    raw = bytearray(path.read_bytes())
    raw[50] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError, match=r"kept/00001-of-00002\.parquet: block 0"):
        tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_bytes_per_token_by_language_are_in_the_manifest(data, model, tmp_path):
    entries = read_manifest(data).content.shards
    for number, rows in enumerate(KEPT_DOCUMENTS):
        raw = parquet(rows, "kept", lang=pa.array(["py", ["de", None][number]], pa.string()))
        path = entries["kept"][number].path
        (data / path).write_bytes(raw)
        entries["kept"][number] = shard_entry(path, raw, documents=len(rows))
    rewrite(data, shards=entries)
    stats = tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)[0].content.stats
    coder = Tokenizer.load(model)
    sizes = [len(coder.encode(rows[0][1])) for rows in KEPT_DOCUMENTS]
    assert list(stats["languages"]) == ["de", "py", "unknown"]
    assert stats["languages"]["py"] == 22 / sum(sizes)


def test_a_missing_document_shard_is_noticed_before_anything_is_undone(data, model, tmp_path):
    out = tmp_path / "out"
    tokenize(str(data), model, str(out), KEPT, QUIET)
    (data / "kept" / "00001-of-00002.parquet").unlink()
    with pytest.raises(DatasetError, match=r"00001-of-00002\.parquet: shard is missing"):
        tokenize(str(data), model, str(out), ALL, QUIET)
    assert verify(out) == []


def test_too_many_sources_are_refused_before_anything_is_made(data, model, tmp_path):
    rewrite(data, sources={f"s{number}": Counts() for number in range((1 << 16) + 1)})
    with pytest.raises(DatasetError, match="65,537 sources"):
        tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)
    assert not (tmp_path / "out").exists()


def test_the_remedy_for_a_changed_shard_gives_the_same_dataset_again(data, model, tmp_path):
    out = tmp_path / "out"
    whole, _ = tokenize(str(data), model, str(out), KEPT, QUIET)
    damaged = out / whole.content.shards["tokens"][1].path
    raw = bytearray(damaged.read_bytes())
    raw[-200] ^= 1
    damaged.write_bytes(raw)
    with pytest.raises(CorruptError, match="delete it and run `assay tokenize` again"):
        TokenDataset.open(out).shard(1)
    damaged.unlink()
    again, ran = tokenize(str(data), model, str(out), KEPT, QUIET)
    assert ran
    assert again.dataset_id == whole.dataset_id
    assert verify(out) == []


def test_counts_that_do_not_add_up_stop_the_job(data, model, tmp_path):
    sources = read_manifest(data).content.sources
    sources["web"].kept += 1
    rewrite(data, sources=sources)
    with pytest.raises(ReconcileError, match="source 'web': the documents dataset states"):
        tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_source_that_never_arrived_is_noticed(data):
    with pytest.raises(ReconcileError, match="source 'code'"):
        check_counts(read_manifest(data), ALL, {})


def test_dropped_documents_without_their_text_are_refused(data, model, tmp_path):
    rewrite(data, recipe={"output": {"dropped_text": False}})
    with pytest.raises(RecipeError, match=r"output\.dropped_text = false"):
        tokenize(str(data), model, str(tmp_path / "out"), ALL, QUIET)
    assert tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)[1]


def test_a_tokens_dataset_is_not_tokenized_again(data, model, tmp_path):
    tokenize(str(data), model, str(tmp_path / "out"), KEPT, QUIET)
    with pytest.raises(DatasetError, match="holds tokens, not documents"):
        tokenize(str(tmp_path / "out"), model, str(tmp_path / "two"), KEPT, QUIET)


def test_the_command_reports_and_checks(data, model, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[tokenize]\ndocuments = "all"\n')
    out = str(tmp_path / "out")
    arguments = [str(recipe), "--data", str(data), "--tokenizer", model, "--out", out, "--quiet"]

    def invoke(*more):
        return CliRunner().invoke(tokenize_command, [*arguments, *more], catch_exceptions=False)

    invoke("--dry-run")
    assert not (tmp_path / "out").exists()
    assert invoke().stdout.startswith(f"tokenized {out}: dataset ")
    assert invoke().stdout.startswith("up to date:")
    with pytest.raises(RecipeError, match=r"tokenize\.documents = 'some'"):
        invoke("--set", "tokenize.documents=some")
