import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import VOCABULARY
from trainer import evaluate as module
from trainer.config import ModelConfig
from trainer.data import read_documents
from trainer.evaluate import HEED_ROUNDS, _rows_that_fit, batch_tokens, evaluate, windows
from trainer.model import Transformer
from trainer.ranks import ALONE, Ranks


@given(st.lists(st.integers(1, 70), min_size=1, max_size=20), st.integers(2, 16))
def test_windows_score_every_token_once_with_enough_context(sizes, length):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    cut = windows(offsets, length)
    scored = np.concatenate([np.arange(s, e) for _, _, e, s in cut])
    assert np.array_equal(np.sort(scored), np.arange(offsets[-1]))
    for document, first, end, start in cut:
        assert offsets[document] <= first <= start < end <= offsets[document + 1]
        assert end - first <= length
        assert first == offsets[document] or start - first >= length // 4


@given(st.lists(st.integers(1, 600), min_size=1, max_size=400), st.sampled_from([1024, 16384]))
def test_batches_fit_and_are_not_smaller_than_needed(lengths, most):
    ascending = np.sort(np.array(lengths))
    rows = _rows_that_fit(ascending, most)
    assert 1 <= rows <= len(ascending)
    assert rows == 1 or rows * ascending[rows - 1] <= most
    assert rows == len(ascending) or (rows + 1) * ascending[rows] > most


def test_a_gpu_gets_batches_that_keep_it_busy_and_a_cpu_those_of_finished_runs():
    assert batch_tokens("cpu") == batch_tokens(torch.device("cpu")) == 1024
    assert batch_tokens("cuda") == batch_tokens(torch.device("cuda", 1)) == 16 * 1024


def test_larger_batches_give_the_same_bits_up_to_rounding(dataset, monkeypatch):
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), VOCABULARY, 8)
    model.initialise(1)
    with torch.no_grad():
        model.head.normal_(generator=torch.Generator().manual_seed(1))
    documents = read_documents(dataset, "split == 'valid'")
    small = evaluate(model, documents, 8)
    calls = []
    nats = module.token_nats
    monkeypatch.setattr(module, "batch_tokens", lambda _: 16 * 1024)
    monkeypatch.setattr(module, "token_nats", lambda *args: calls.append(1) or nats(*args))
    assert np.allclose(evaluate(model, documents, 8).bits, small.bits, rtol=1e-5)
    assert len(calls) == 1


def test_ranks_heed_between_the_same_batches_and_the_result_stays(dataset, monkeypatch):
    monkeypatch.setattr(module, "batch_tokens", lambda _: 64)
    torch.set_num_threads(1)

    class Last(Ranks):
        rank, world_size = 2, 3

    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), VOCABULARY, 8)
    model.initialise(1)
    documents = read_documents(dataset, "split == 'valid'")
    calls, seen = {}, []
    for ranks in (ALONE, *(type("R", (Last,), {"rank": r})() for r in range(3))):
        seen = calls.setdefault((ranks.world_size, ranks.rank), [])
        result = evaluate(model, documents, 8, ranks=ranks, heed=lambda seen=seen: seen.append(1))
        if ranks is ALONE:
            assert np.array_equal(result.bits, evaluate(model, documents, 8).bits)
    batches = len(calls[1, 0])
    assert batches > 3 * HEED_ROUNDS
    for rank in range(3):
        assert len(calls[3, rank]) == -(-batches // (3 * HEED_ROUNDS))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, documents, 8, heed=stop)


def test_a_uniform_model_needs_log_v_bits_for_every_token(dataset):
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), VOCABULARY, 8)
    model.initialise(0)  # an untied head starts at zero
    documents = read_documents(dataset, "split == 'valid'")
    result = evaluate(model, documents, 8)
    expected = np.diff(documents.offsets) * math.log2(VOCABULARY)
    assert np.allclose(result.bits, expected, rtol=1e-5)
    assert result.bpb == result.bits.sum() / documents.bytes.sum()
    by_source = result.by_source()
    shares = np.bincount(documents.source, documents.bytes) / documents.bytes.sum()
    assert np.isclose(shares @ [by_source["one"], by_source["two"]], result.bpb)


def test_batching_does_not_change_a_document(dataset):
    """Each document by itself, token by token, gives what the padded batches give."""
    length = 8
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), VOCABULARY, length)
    model.initialise(0)
    with torch.no_grad():
        model.head.normal_(generator=torch.Generator().manual_seed(1))
    documents = read_documents(dataset, "split == 'valid'", 300)
    result = evaluate(model, documents, length)
    previous = documents.previous().astype(np.int64)
    for document in (0, len(documents) - 1):
        nats = 0.0
        for d, first, end, start in windows(documents.offsets, length):
            if d == document:
                with torch.no_grad():
                    logits = model(torch.from_numpy(previous[None, first:end]))
                rows = logits[0].double().log_softmax(-1)
                for place in range(start, end):
                    nats -= rows[place - first, int(documents.tokens[place])].item()
        assert math.isclose(result.bits[document], nats / math.log(2), rel_tol=1e-4)
