import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset import TokenDataset
from shards.errors import TrainingError
from tests.trainer.conftest import EOS, counting_table, write_dataset
from trainer import study_overlap
from trainer.data import read_documents
from trainer.study_config import StudyConfig
from trainer.study_overlap import NGRAM, decontaminate, ngram_hashes

ARMS = {"raw": "split == 'train'", "clean": "split == 'train' and dropped == ''"}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_equal_ngrams_have_equal_hashes_and_none_crosses_a_document(lengths, seed):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.integers(0, 2, offsets[-1]).astype(np.uint16)
    hashes, document = ngram_hashes(tokens, offsets)
    wanted = [
        (tuple(tokens[i : i + NGRAM].tolist()), number)
        for number, (first, end) in enumerate(itertools.pairwise(offsets))
        for i in range(first, end - NGRAM + 1)
    ]
    assert document.tolist() == [number for _, number in wanted]
    by_hash = dict(zip(hashes.tolist(), (gram for gram, _ in wanted), strict=True))
    assert len(by_hash) == len({gram for gram, _ in wanted})
    assert all(by_hash[h] == g for h, (g, _) in zip(hashes.tolist(), wanted, strict=True))


@pytest.fixture
def leaked(tmp_path):
    """Random texts; the text of one validation document is also inside a training document."""
    rng = np.random.default_rng(3)
    table = counting_table(60)
    texts = [np.append(rng.integers(3, 19, 30), EOS) for _ in range(60)]
    texts[7] = np.concatenate([rng.integers(3, 19, 9), texts[6]])  # 6 is validation, 7 is noise
    texts[12] = np.append(rng.integers(3, 19, 5), EOS)  # too short to be judged
    texts[20] = np.concatenate([rng.integers(3, 19, 9), texts[18][:20], [EOS]])  # a quotation
    tokens = table.schema.names.index("tokens")
    table = table.set_column(tokens, "tokens", [[text.tolist() for text in texts]])
    schema = counting_table(1).schema
    return TokenDataset.open(write_dataset(tmp_path, table.cast(schema)))


def open_valid(dataset, **changes):
    study = StudyConfig(**{"arms": ARMS, "valid": "split == 'valid'"} | changes)
    return decontaminate(dataset, study, read_documents(dataset, study.valid))


@pytest.mark.parametrize("chunk", [10, 1 << 22])
def test_what_is_in_the_training_data_is_taken_out_and_said(leaked, monkeypatch, chunk):
    monkeypatch.setattr(study_overlap, "_CHUNK", chunk)
    valid, found = open_valid(leaked)
    assert (found.documents, found.removed, found.short) == (10, 1, 1)
    assert len(valid) == 9
    assert valid.offsets[-1] == len(valid.tokens)
    assert found.highest == pytest.approx(8 / 19)  # the quotation has 20 of 31 tokens
    assert found.arms["raw"] == found.arms["clean"] == pytest.approx(8 / (7 * 19 + 19))
    texts = [valid.tokens[a:b].tolist() for a, b in itertools.pairwise(valid.offsets)]
    assert sorted(map(len, texts))[0] == 6


def test_a_suggested_study_is_tested_on_the_documents_of_the_first(leaked):
    """It has the control alone; what only other arms hold must not come back."""
    clean, raw = ARMS["clean"], ARMS["raw"]
    valid, found = open_valid(leaked)
    alone = {"control": "clean", "arms": {"clean": clean}, "repeats": [2]}
    assert len(open_valid(leaked, **alone)[0]) == len(valid) + 1
    same, again = open_valid(leaked, **alone, apart_from=[clean, raw])
    assert same.digest() == valid.digest()
    assert again == msgspec.structs.replace(found, arms={"clean": found.arms["clean"]})


def test_a_limit_of_one_takes_nothing_out_and_still_measures(leaked):
    valid, found = open_valid(leaked, max_overlap=1)
    assert (len(valid), found.removed, found.highest) == (10, 0, 1.0)
    assert found.arms["raw"] > found.arms["clean"]  # the copy is in a document that was dropped


def test_a_validation_that_is_in_the_training_data_is_refused(dataset):
    with pytest.raises(TrainingError, match=r"max_overlap = 0: of \d+ validation documents"):
        decontaminate(
            dataset,
            StudyConfig(arms=ARMS, max_overlap=0),
            read_documents(dataset, "split == 'valid' and dropped == '' and bytes > 20"),
        )
