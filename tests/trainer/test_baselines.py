import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.loader import Loader
from tests.trainer.conftest import VOCABULARY
from trainer.baselines import fit_and_score, fit_bigram, fit_unigram, pairs_read, zstd_bpb
from trainer.data import read_documents

TOKENS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


@given(TOKENS)
def test_probabilities_sum_to_one_after_every_token(tokens):
    stream = np.array(tokens)
    assert np.exp(fit_unigram(stream, 6).log_p).sum() == pytest.approx(1)
    bigram = fit_bigram(stream[:-1], stream[1:], 6)
    for previous in range(6):  # 5 is never seen
        p = np.exp(-bigram.nats(np.full(6, previous), np.arange(6)))
        assert p.sum() == pytest.approx(1)
        assert p.min() > 0


def test_bigram_by_hand():
    """0 1 0 1 0 2 1: pairs 01 ×2, 10 ×2, 02, 21, so n1 = n2 = 2 and D = 1/3."""
    stream = np.array([0, 1, 0, 1, 0, 2, 1])
    bigram = fit_bigram(stream[:-1], stream[1:], 3)
    assert bigram.discount == pytest.approx(2 / 6)
    q1 = (2 + 0.5) / (4 + 1.5)  # 1 follows both 0 and 2, out of 4 distinct pairs
    expected = (2 - 1 / 3 + 1 / 3 * 2 * q1) / 3  # 0 was followed 3 times, by 2 distinct tokens
    assert bigram.nats(np.array([0]), np.array([1]))[0] == pytest.approx(-math.log(expected))


def test_the_bigram_model_reads_order(dataset):
    """Counting documents have two likely successors of a digit: about 1 bit, against log2 16."""
    valid = read_documents(dataset, "split == 'valid' and dropped == ''")
    train = read_documents(dataset, "split == 'train' and dropped == ''")
    result = fit_and_score(train.previous(), train.tokens, valid, VOCABULARY)
    assert 3.8 < result.unigram < 4.5
    assert 1.0 < result.bigram < 1.8


def test_a_run_reads_each_pair_of_its_samples_once(dataset):
    view = dataset.select("split == 'train'")

    def loader():
        return Loader(view, sequence_length=8, batch_size=5, seed=3)

    samples = loader().samples_per_epoch
    previous, tokens = pairs_read(loader(), 3 * samples)
    stream = read_documents(dataset, "split == 'train'").tokens
    expected = sorted(zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True))
    assert sorted(zip(previous.tolist(), tokens.tolist(), strict=True)) == expected
    assert len(pairs_read(loader(), 7)[0]) == 7 * 8


def test_zstd_comes_from_the_signal(dataset):
    assert zstd_bpb(read_documents(dataset, "split == 'valid'")) == pytest.approx(4)
