import numpy as np
import pytest

from shards.errors import TrainingError
from tests.trainer.conftest import EOS
from trainer.data import overlap, read_documents


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


def test_head_takes_whole_documents_in_order_and_at_least_one(dataset):
    whole = read_documents(dataset, "split == 'valid'")
    lengths = np.diff(whole.offsets)
    part = whole.head(int(lengths[:3].sum()))
    assert np.array_equal(np.diff(part.offsets), lengths[:3])
    assert np.array_equal(part.tokens, whole.tokens[: part.offsets[-1]])
    assert np.array_equal(part.bytes, whole.bytes[:3])
    assert len(whole.head(1)) == 1
    assert whole.head(10**9).digest() == whole.digest()
