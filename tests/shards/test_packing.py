import json
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import RecipeError, TrainingError
from shards.loader import IGNORE, Loader
from shards.packing import document_ids, pack
from shards.torch import TorchLoader

from .conftest import EOS

T, B = 15, 4


@pytest.fixture
def view(make_tokens):
    return make_tokens([5, 7, 3, 40, 11, 2] * 4, [13, 1, 16] * 3).select("x != 3")


def loader(view, **options):
    fixed = {"sequence_length": T, "batch_size": B, "seed": 1, "packing": "best-fit"}
    return Loader(view, **{**fixed, **options})


def offsets_of(sizes):
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 25))
def test_every_token_is_in_one_row_and_only_long_documents_are_cut(sizes, capacity):
    offsets = offsets_of(sizes)
    rows, starts, lengths = pack(offsets, capacity)
    covered = np.zeros(sum(sizes), np.int64)
    for start, length in zip(starts, lengths, strict=True):
        covered[start : start + length] += 1
    assert (covered == 1).all()
    filled = [lengths[a:b].sum() for a, b in pairwise(rows)]
    assert all(0 < full <= capacity for full in filled)
    whole = {(offsets[i], size) for i, size in enumerate(sizes) if 0 < size <= capacity}
    assert whole <= set(zip(starts, lengths, strict=True))
    # No two rows could be one: each was opened because nothing had room, or is a full piece.
    assert len(filled) < 2 or sum(sorted(filled)[:2]) > capacity


def test_takes_the_row_with_the_least_room_that_is_enough():
    rows, starts, lengths = pack(offsets_of([6, 7, 3, 4]), 10)
    assert [lengths[a:b].tolist() for a, b in pairwise(rows)] == [
        [7, 3],
        [6, 4],
    ]
    assert starts.tolist() == [6, 13, 0, 16]
    with pytest.raises(RecipeError, match="at least 1 token, got 0"):
        pack(offsets_of([1]), 0)


def test_cuts_far_fewer_documents_than_a_stream_does():
    sizes = np.random.default_rng(0).lognormal(6, 1, 5000).astype(np.int64) + 1
    offsets, capacity = offsets_of(sizes), 2049
    rows, _, lengths = pack(offsets, capacity)
    by_packing = np.count_nonzero(sizes > capacity) / len(sizes)
    by_stream = np.count_nonzero(offsets[:-1] // 2048 != (offsets[1:] - 1) // 2048) / len(sizes)
    assert by_packing < by_stream / 4
    assert lengths.sum() / ((len(rows) - 1) * capacity) > 0.995


def test_an_epoch_has_each_document_once(view):
    source, plain = loader(view), {d.doc_id: d.tokens.tolist() for d in view}
    seen = []
    while source.state()["g"] < source.samples_per_epoch:
        batch = source.next()
        for g, row, size in zip(batch.indices, batch.tokens, batch.lengths, strict=True):
            if g < source.samples_per_epoch:
                spans = source.locate(int(g))
                parts = [plain[s.doc_id][s.start : s.start + s.length] for s in spans]
                assert row.tolist() == [*chain(*parts), *[EOS] * (T + 1 - size)]
                seen += spans
    assert sum(span.length for span in seen) == view.tokens
    assert len({(span.doc_id, span.start) for span in seen}) == len(seen)
    cut = {span.doc_id for span in seen if span.length < len(plain[span.doc_id])}
    assert cut == {doc_id for doc_id, tokens in plain.items() if len(tokens) > T + 1}


def test_padding_is_ignored_and_world_size_and_stops_change_nothing(view):
    alone = loader(view)
    ranks = [loader(view, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(8):
        state = json.loads(json.dumps(alone.state()))
        whole = alone.next()
        real = np.arange(1, T + 1) < whole.lengths[:, np.newaxis]
        np.testing.assert_array_equal(whole.targets == IGNORE, ~real)
        for rank, part in enumerate(ranks):
            part.load_state(state)
            np.testing.assert_array_equal(part.next().tokens, whole.tokens[rank::2])
    with TorchLoader(loader(view), depth=1) as batches:
        np.testing.assert_array_equal(next(batches)[0], loader(view).next().inputs)
    with pytest.raises(TrainingError, match="seed was 7"):
        alone.load_state({**state, "seed": 7})


def test_numbers_the_documents_of_a_row():
    tokens = np.array([[5, EOS, 7, 8, EOS, EOS, 9], [5, 6, 7, 8, 9, 5, EOS]])
    assert document_ids(tokens, EOS).tolist() == [[0, 0, 1, 1, 1, 2, 3], [0] * 7]


def test_refuses_what_has_no_documents(view):
    with pytest.raises(TrainingError, match="'x > 99' keeps no document"):
        loader(view.dataset.select("x > 99"))
    with pytest.raises(IndexError, match="does not fit"):
        loader(view).next(np.empty((B, T), np.int64))
