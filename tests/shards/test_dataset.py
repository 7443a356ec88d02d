import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shards.dataset
from shards.atomic import write_atomic
from shards.dataset import TokenDataset
from shards.errors import CorruptError, DatasetError, RecipeError
from shards.hashing import BLOCK_BYTES
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest

from .conftest import EOS, build_tokens, flip

shard_lengths = st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=3)


def naive(dataset, keep):
    """Documents of the whole dataset that `keep(i)` keeps, read row by row."""
    documents = []
    for index in range(len(dataset.entries)):
        batch = dataset.shard(index).batch
        documents += [
            (row["doc_id"], row["tokens"], row["bytes"])
            for row in batch.to_pylist()
            if keep(int.from_bytes(row["doc_id"], "big"))
        ]
    return documents


@given(
    shard_lengths,
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from([1000, 70000]),
    st.data(),
)
def test_views_with_gaps_equal_a_naive_reader(tmp_path_factory, lengths, gap, vocab, data):
    low, high = gap
    folder = build_tokens(tmp_path_factory.mktemp("v"), *lengths, vocab_size=vocab)
    dataset = TokenDataset.open(folder)
    view = dataset.select(f"x < {low} or x > {high}")
    expected = naive(dataset, lambda i: i % 10 < low or i % 10 > high)
    assert [(d.doc_id, d.tokens.tolist(), d.bytes) for d in view] == expected
    stream = [token for _, tokens, _ in expected for token in tokens]
    assert (view.documents, view.tokens) == (len(expected), len(stream))
    assert view.bytes == sum(size for _, _, size in expected)
    start = data.draw(st.integers(0, len(stream)))
    length = data.draw(st.integers(0, len(stream) - start))
    out = np.full(length + 1, -7)
    assert view.gather(start, length, out).tolist() == stream[start : start + length]
    assert out[length] == -7
    by_id = {doc_id: tokens for doc_id, tokens, _ in expected}
    located = [
        by_id[span.doc_id][span.start : span.start + span.length]
        for span in view.locate(start, length)
    ]
    assert [token for part in located for token in part] == stream[start : start + length]


def test_knows_what_it_holds(make_tokens):
    dataset = make_tokens([3, 4], [5])
    assert (dataset.vocab_size, dataset.eos_id, dataset.sources) == (1000, EOS, ["web"])
    assert dataset.dataset_id == dataset.manifest.dataset_id
    assert dataset.select().documents == 3


def test_equal_selections_have_equal_hashes(make_tokens):
    dataset = make_tokens([3] * 9, [4] * 9)
    assert dataset.select("x < 5").selection_hash == dataset.select("not x >= 5").selection_hash
    assert dataset.select("x < 5").selection_hash != dataset.select("x < 4").selection_hash


def test_ranges_outside_the_view_are_refused(make_tokens):
    view = make_tokens([3, 4]).select()
    out = np.zeros(9, np.int64)
    for start, length in [(-1, 2), (5, 3), (8, 1), (2, -1)]:
        with pytest.raises(IndexError, match="a view of 7 tokens"):
            view.gather(start, length, out)
    with pytest.raises(IndexError, match="do not fit into an array of shape"):
        view.gather(0, 7, out[:6])


def test_a_selection_on_an_unknown_column_is_refused(make_tokens):
    with pytest.raises(RecipeError, match="unknown column 'splt'; did you mean 'split'"):
        make_tokens([3]).select("splt == 'train'")


def test_open_says_what_is_wrong_with_the_folder(make_tokens, tmp_path):
    folder = make_tokens([3], [4]).folder
    shard = folder / "tokens/00001-of-00002.arrow"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(
        CorruptError, match=rf"00001.*: {len(data) - 1} bytes, expected {len(data)}"
    ):
        TokenDataset.open(folder)
    shard.unlink()
    with pytest.raises(DatasetError, match=r"00001-of-00002\.arrow: shard is missing"):
        TokenDataset.open(folder)
    for kind, message in [("documents", "run assay tokenize"), ("tokens", "must state sha256")]:
        content = Content(kind=kind, shards={}, total=Counts(), sources={})
        manifest = new_manifest(content, stage_key="", run={})
        write_atomic(tmp_path / kind / MANIFEST, encode_manifest(manifest))
        with pytest.raises(DatasetError, match=message):
            TokenDataset.open(tmp_path / kind)


def test_every_flipped_bit_is_found_wherever_it_is(make_tokens):
    dataset = make_tokens([5] * 40)
    path = dataset.folder / dataset.entries[0].path
    size = path.stat().st_size
    for position in range(0, size, 11):  # magic, schema, columns, stream, footer
        flip(path, position, position % 8)
        with pytest.raises(CorruptError, match=r"00000-of-00001\.arrow: block 0 "):
            list(TokenDataset.open(dataset.folder).select())
        flip(path, position, position % 8)
    assert len(list(TokenDataset.open(dataset.folder).select())) == 40


def test_a_flip_in_the_stream_is_found_when_its_block_is_touched(big_folder, tmp_path):
    folder = shutil.copytree(big_folder, tmp_path / "copy")
    dataset = TokenDataset.open(folder)
    shard = dataset.shard(0)
    flip(folder / dataset.entries[0].path, BLOCK_BYTES + 12345)
    view = TokenDataset.open(folder).select()
    out = np.zeros(view.tokens, np.int64)
    view.gather(0, 1000, out)  # block 0 is as it was
    inside = (BLOCK_BYTES - shard.tokens_at) // shard.tokens.itemsize
    with pytest.raises(CorruptError, match=r"block 1 .*expected xxh3-128 \w{32}, found \w{32}"):
        view.gather(inside, 2, out)
    with pytest.raises(CorruptError, match="block 1"):
        list(view)


def test_each_block_is_hashed_once_and_only_when_touched(big_folder, monkeypatch):
    hashed = []
    real = shards.dataset.xxh128
    monkeypatch.setattr(shards.dataset, "xxh128", lambda data: hashed.append(1) or real(data))
    dataset = TokenDataset.open(big_folder)
    assert not hashed
    view = dataset.select()
    columns = len(hashed) - 1  # one call names the selection
    blocks = sum(len(entry.blocks) for entry in dataset.entries)
    assert 0 < columns < blocks
    out = np.zeros(view.tokens, np.int64)
    for _ in range(2):
        view.gather(0, view.tokens, out)
        list(view)
        assert len(hashed) - 1 == blocks


def test_a_shard_that_does_not_fit_the_manifest_is_refused(make_tokens, tmp_path):
    dataset = make_tokens([3, 4])
    content = dataset.manifest.content
    content.tokenizer = {**content.tokenizer, "sha256": "00" * 32}
    manifest = new_manifest(content, stage_key="", run={})
    write_atomic(dataset.folder / MANIFEST, encode_manifest(manifest))
    with pytest.raises(CorruptError, match="but the manifest says"):
        TokenDataset.open(dataset.folder).select()
