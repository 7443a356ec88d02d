from contextlib import closing

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from shards.errors import RecipeError, TrainingError
from tests.trainer.conftest import EOS, counting_table, write_dataset
from trainer.data import open_tokens, overlap, read_documents


def test_documents_are_those_of_the_view_in_its_order(dataset):
    documents = read_documents(dataset, "split == 'valid' and dropped == ''")
    view = list(dataset.select("split == 'valid' and dropped == ''"))
    assert len(documents) == len(view) == 100
    assert np.array_equal(documents.tokens, np.concatenate([d.tokens for d in view]))
    assert documents.bytes.tolist() == [d.bytes for d in view]
    assert np.array_equal(documents.tokens[documents.offsets[1:] - 1], np.full(100, EOS))
    assert set(documents.source) == {0, 1}
    assert documents.sources == ("one", "two")
    assert np.array_equal(documents.zstd_bits, 4.0 * documents.bytes)


def test_previous_starts_every_document_from_eos(dataset):
    documents = read_documents(dataset, "bytes < 10")
    previous = documents.previous()
    inner = np.ones(len(previous), bool)
    inner[documents.offsets[:-1]] = False
    assert (previous[documents.offsets[:-1]] == EOS).all()
    assert np.array_equal(previous[inner], documents.tokens[np.flatnonzero(inner) - 1])


def test_a_limit_takes_documents_by_id_as_long_as_they_fit(dataset):
    everything = read_documents(dataset, "split == 'valid'")
    some = read_documents(dataset, "split == 'valid'", 300)
    assert 300 - 40 < len(some.tokens) <= 300
    assert read_documents(dataset, "split == 'valid'", 10**6).digest() == everything.digest()
    assert some.digest() != everything.digest()
    smallest = min(d.doc_id for d in dataset.select("split == 'valid'"))
    first = next(d for d in dataset.select("split == 'valid'") if d.doc_id == smallest)
    assert first.tokens.tobytes() in some.tokens.tobytes()


def test_no_document_is_an_error_that_names_the_selection(dataset):
    with pytest.raises(TrainingError, match="split == 'test'"):
        read_documents(dataset, "split == 'test'")
    with pytest.raises(TrainingError, match=r"train\.eval_tokens"):
        read_documents(dataset, "split == 'valid'", 1)


def test_overlap_counts_shared_documents(dataset):
    assert overlap(dataset, "split == 'train'", "split == 'valid'") == 0
    assert overlap(dataset, "dropped == ''", "split == 'valid'") == 100
    with pytest.raises(RecipeError, match=r"^a selection is empty"):
        overlap(dataset, "", "split == 'valid'")
    with pytest.raises(RecipeError, match=r"^selection 'byte < 9': unknown column 'byte'"):
        overlap(dataset, "byte < 9", "split == 'valid'")


def test_head_takes_whole_documents_in_order_and_at_least_one(dataset):
    whole = read_documents(dataset, "split == 'valid'")
    lengths = np.diff(whole.offsets)
    part = whole.head(int(lengths[:3].sum()))
    assert np.array_equal(np.diff(part.offsets), lengths[:3])
    assert np.array_equal(part.tokens, whole.tokens[: part.offsets[-1]])
    assert np.array_equal(part.bytes, whole.bytes[:3])
    assert len(whole.head(1)) == 1
    assert whole.head(10**9).digest() == whole.digest()


def test_a_dataset_at_a_url_is_read_through_a_cache(folder, tmp_path, monkeypatch):
    fsspec.filesystem("memory").put(str(folder), "memory://train", recursive=True)
    here = open_tokens(str(folder))
    there = open_tokens("memory://train", tmp_path / "cache", 16)
    with closing(there):
        one, other = (read_documents(each, "split == 'valid'") for each in (here, there))
        assert one.digest() == other.digest()
        assert there.location == "memory://train"
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        with closing(open_tokens("memory://train", tmp_path / "cache", 16)) as of_rank_1:
            assert of_rank_1.folder.parent.name == "rank-1"
    with pytest.raises(RecipeError, match="is a folder here, which needs none"):
        open_tokens(str(folder), tmp_path / "cache")
    with pytest.raises(RecipeError, match=r"not a cache: it holds manifest\.json"):
        open_tokens("memory://train", folder)
    with pytest.raises(RecipeError, match="memory://train: say with --cache FOLDER"):
        open_tokens("memory://train")


def test_a_bounded_cache_need_not_hold_a_shard(tmp_path):
    """Validation documents are read from pieces, not from the whole stream."""
    documents, length = 40, 250_000
    tokens = np.full((documents, length), 3, np.int64)
    tokens[:, -1] = EOS
    tokens[:, 0] = np.arange(documents) % 16 + 3
    table = counting_table(documents).drop_columns("tokens")
    offsets = np.arange(documents + 1) * length
    stream = pa.LargeListArray.from_arrays(offsets, pa.array(tokens.ravel()))
    folder = write_dataset(tmp_path / "tokens", table.append_column("tokens", stream))
    fsspec.filesystem("memory").put(str(folder), "memory://large", recursive=True)
    everything = read_documents(open_tokens(str(folder)), "True")
    assert everything.tokens.nbytes == 20_000_000
    with closing(open_tokens("memory://large", tmp_path / "cache", 16)) as there:
        assert read_documents(there, "True").digest() == everything.digest()
