import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.atomic import write_atomic
from shards.errors import CorruptError, DatasetError
from shards.hashing import BLOCK_BYTES
from shards.manifest import (
    MANIFEST,
    Content,
    Counts,
    encode_manifest,
    new_manifest,
    read_manifest,
)
from shards.tokens import shard_entry
from shards.verify import verify

from .conftest import build_tokens, flip


@pytest.fixture
def folder(big_folder, tmp_path):
    return shutil.copytree(big_folder, tmp_path / "ds")


@pytest.fixture
def documents(tmp_path):
    """A documents dataset: 3 kept, 1 dropped."""
    shards = {}
    for role, count in (("kept", 3), ("dropped", 1)):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": ["x"] * count}), sink)
        data = memoryview(sink.getvalue())
        path = f"{role}/00000-of-00001.parquet"
        write_atomic(tmp_path / "docs" / path, data)
        shards[role] = [shard_entry(path, data, documents=count)]
    total = Counts(read=4, kept=3, dropped=1, drops={"too_short": 1})
    content = Content(kind="documents", shards=shards, total=total, sources={"web": total})
    return rewrite(tmp_path / "docs", content)


def rewrite(folder, content):
    """Write a manifest that is right about `content`, whatever that says."""
    data = encode_manifest(new_manifest(content, stage_key="k", run={"host": "here"}))
    write_atomic(folder / MANIFEST, data)
    return folder


def test_a_good_dataset_has_no_problems_and_all_bytes_are_seen(folder, documents):
    done = []
    assert verify(folder, progress=done.append) == []
    assert sum(done) == sum(path.stat().st_size for path in (folder / "tokens").iterdir())
    assert verify(folder, quick=True) == []
    assert verify(documents) == []


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("where", [0, 17, BLOCK_BYTES - 1, BLOCK_BYTES, -1, -40])
def test_a_flipped_bit_is_found_with_file_and_block(folder, shard, where):
    path = folder / f"tokens/{shard:05}-of-00002.arrow"
    position = where % path.stat().st_size
    expected = read_manifest(folder).content.shards["tokens"][shard].blocks[position // BLOCK_BYTES]
    flip(path, position, 7)
    [problem] = verify(folder)
    assert problem.path == f"tokens/{shard:05}-of-00002.arrow"
    assert problem.block == position // BLOCK_BYTES
    assert f"expected xxh3-128 {expected}, found " in problem.message
    assert str(problem).startswith(f"{problem.path} block {problem.block}: ")
    assert verify(folder, quick=True) == [problem]  # so few blocks that the sample has them all


def test_quick_reads_the_first_and_last_block_and_some_between(folder, monkeypatch):
    path = folder / "tokens/00000-of-00002.arrow"
    blocks = -(-path.stat().st_size // BLOCK_BYTES)
    assert blocks >= 3
    monkeypatch.setattr("shards.verify.QUICK_BLOCKS", 2)
    flip(path, BLOCK_BYTES + 5)
    assert verify(folder, quick=True) == []
    flip(path, -1)
    assert [problem.block for problem in verify(folder, quick=True)] == [blocks - 1]
    monkeypatch.setattr("shards.verify.QUICK_BLOCKS", blocks)
    read = []
    assert [problem.block for problem in verify(folder, quick=True, progress=read.append)] == [
        1,
        blocks - 1,
    ]
    assert len(read) == blocks * 2  # both shards


def test_all_problems_are_listed_in_order(folder):
    first, second = sorted((folder / "tokens").iterdir())
    flip(first, 5)
    flip(first, BLOCK_BYTES + 5)
    second.write_bytes(second.read_bytes()[: BLOCK_BYTES + 10])
    (folder / "tokens/stray.arrow").write_bytes(b"")
    (folder / "tokens/00000-of-00002.arrow.partial-12ab34cd").write_bytes(b"left by a kill")
    found = [(problem.path, problem.block) for problem in verify(folder)]
    assert found == [
        ("tokens/00000-of-00002.arrow", 0),
        ("tokens/00000-of-00002.arrow", 1),
        ("tokens/00001-of-00002.arrow", 1),
        ("tokens/stray.arrow", None),
    ]
    quick = [problem.message for problem in verify(folder, quick=True)]
    assert quick[2].startswith(f"truncated: {BLOCK_BYTES + 10} bytes, expected ")
    assert quick[3] == "is not in the manifest"


def test_a_missing_and_a_longer_shard_are_found(documents):
    (documents / "kept/00000-of-00001.parquet").unlink()
    with (documents / "dropped/00000-of-00001.parquet").open("ab") as file:
        file.write(b"more")
    messages = [problem.message for problem in verify(documents)]
    assert messages[0].startswith("too long: ")
    assert messages[1] == "is missing"


def test_every_flipped_bit_of_the_manifest_is_found(tmp_path):
    folder = build_tokens(tmp_path / "ds", [3])
    path = folder / MANIFEST
    for position in range(0, path.stat().st_size, 3):
        flip(path, position, position % 7)
        with pytest.raises(DatasetError, match=r"manifest\.json: "):
            verify(folder)
        flip(path, position, position % 7)
    assert verify(folder) == []


def test_a_change_of_the_unhashed_part_is_named(tmp_path):
    folder = build_tokens(tmp_path / "ds", [3])
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"here"', b'"hers"'))
    with pytest.raises(CorruptError, match="was changed after it was written"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read": 5}, "total: kept + dropped: 4, expected 5"),
        ({"drops": {"too_short": 2}}, "total: drops by reason: 2, expected 1"),
        ({"bytes_read": 7}, "sum of sources: bytes_read: 0, expected 7"),
        ({"kept": 2, "dropped": 2, "drops": {"b": 2}}, "documents in kept shards: 3, expected 2"),
    ],
)
def test_counts_that_do_not_add_up_are_found(documents, change, message):
    content = read_manifest(documents).content
    for field, value in change.items():
        setattr(content.total, field, value)
    rewrite(documents, content)
    assert message in [problem.message for problem in verify(documents)]


def test_rows_and_hashes_that_contradict_the_manifest_are_found(documents, tmp_path):
    content = read_manifest(documents).content
    entry = content.shards["kept"][0]
    data = (documents / entry.path).read_bytes()
    content.shards["kept"] = [shard_entry(entry.path, data, documents=4)]
    rewrite(documents, content)
    messages = [problem.message for problem in verify(documents)]
    assert "3 documents and 0 tokens, expected 4 and 0" in messages

    junk = b"PAR1 but not parquet"
    (documents / entry.path).write_bytes(junk)
    content.shards["kept"] = [shard_entry(entry.path, junk, documents=3)]
    rewrite(documents, content)
    assert any(p.message.startswith("cannot be read: ") for p in verify(documents))

    tokens = build_tokens(tmp_path / "tok", [3], [4])
    content = read_manifest(tokens).content
    content.shards["tokens"].reverse()
    rewrite(tokens, content)
    messages = [problem.message for problem in verify(tokens)]
    assert "tokens/00001-of-00002.arrow: first token: 3, expected 0" in messages


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="not a dataset"):
        verify(tmp_path)
