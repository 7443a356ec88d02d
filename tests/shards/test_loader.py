import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset import TokenDataset
from shards.errors import CorruptError, RecipeError, TrainingError
from shards.loader import IGNORE, Loader

from .conftest import EOS, build_tokens, flip

T = 8


@pytest.fixture
def view(make_tokens):
    return make_tokens([5, 7, 3, 9, 11, 2] * 4, [13, 1, 6] * 3).select("x != 3")


def stream_of(view):
    return np.concatenate([document.tokens for document in view]).astype(np.int64)


def loader(view, **options):
    return Loader(view, **{"sequence_length": T, "batch_size": 4, "seed": 1, **options})


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 7), st.integers(0, 99))
def test_an_epoch_has_every_sample_once_and_predicts_every_token_once(
    tmp_path_factory, tokens, length, batch, seed
):
    folder = build_tokens(tmp_path_factory.mktemp("l"), [1 + tokens // 2, tokens - tokens // 2])
    view = TokenDataset.open(folder).select()
    stream = stream_of(view)
    source = Loader(view, sequence_length=length, batch_size=batch, seed=seed)
    for epoch in range(2):  # batches cross the border of epochs
        source.load_state({**source.state(), "g": 0})
        samples = []
        while source.state()["g"] < (epoch + 1) * source.samples_per_epoch:
            got = source.next()
            rows = zip(got.indices, got.tokens, got.lengths, strict=True)
            samples += [
                row[:size].tolist()
                for g, row, size in rows
                if g // source.samples_per_epoch == epoch
            ]
        pieces = [stream[k : k + length + 1].tolist() for k in range(0, len(stream) - 1, length)]
        assert sorted(samples) == sorted(pieces)
        assert sum(len(sample) - 1 for sample in samples) == len(stream) - 1


def test_global_batches_do_not_depend_on_the_world_size(view):
    alone = loader(view)
    shared = {W: [loader(view, rank=r, world_size=W) for r in range(W)] for W in (2, 4)}
    for _ in range(2 * alone.samples_per_epoch // 4):
        whole = alone.next()
        for W, ranks in shared.items():
            for rank, part in enumerate(each.next() for each in ranks):
                np.testing.assert_array_equal(part.indices, whole.indices[rank::W])
                np.testing.assert_array_equal(part.tokens, whole.tokens[rank::W])
                np.testing.assert_array_equal(part.targets, whole.targets[rank::W])


def test_going_on_from_a_state_equals_never_having_stopped(view):
    straight = loader(view)
    for _ in range(5):
        straight.next()
    state = json.loads(json.dumps(straight.state()))  # as a checkpoint stores it
    resumed = loader(view)
    resumed.load_state(state)
    for _ in range(20):
        np.testing.assert_array_equal(straight.next().tokens, resumed.next().tokens)


def test_epochs_and_seeds_differ(view):
    one, other = loader(view), loader(view, seed=2)
    N = one.samples_per_epoch
    assert one.epoch == 0
    first = [one.next().tokens for _ in range(N // 4 + 1)]
    assert not np.array_equal(first[0], other.next().tokens)
    one.load_state({**one.state(), "g": N * 4})
    assert one.epoch == 4
    assert not np.array_equal(first[0], one.next().tokens)


def test_the_tail_sample_is_kept_padded_with_eos_and_its_padding_ignored(make_tokens):
    view = make_tokens([T + 4]).select()  # T + 1 tokens, then a tail of 3 more
    stream = stream_of(view)
    batch = loader(view, batch_size=2).next()
    tail = int(np.argmin(batch.lengths))
    assert sorted(batch.lengths) == [4, T + 1]
    assert batch.tokens[tail].tolist() == [*stream[T:], *[EOS] * (T - 3)]
    assert batch.targets[tail].tolist() == [*stream[T + 1 :], *[IGNORE] * (T - 3)]
    assert batch.targets[1 - tail].tolist() == stream[1 : T + 1].tolist()
    assert batch.inputs.shape == batch.targets.shape == (2, T)
    assert batch.inputs.min() >= 0


def test_fills_the_array_it_is_given(view):
    out = np.full((4, T + 1), -7)
    batch = loader(view).next(out)
    assert batch.tokens is out
    np.testing.assert_array_equal(out, loader(view).next().tokens)


def test_refuses_an_array_of_another_shape(view):
    for shape in ((4, T), (3, T + 1)):
        with pytest.raises(IndexError, match=r"shape \(4, 9\) does not fit"):
            loader(view).next(np.empty(shape, np.int64))


def test_locates_the_documents_of_a_sample(view):
    by_id = {document.doc_id: document.tokens for document in view}
    source = loader(view)
    for _ in range(6):
        batch = source.next()
        for g, row, size in zip(batch.indices, batch.tokens, batch.lengths, strict=True):
            spans = source.locate(g)
            parts = [by_id[s.doc_id][s.start : s.start + s.length] for s in spans]
            np.testing.assert_array_equal(np.concatenate(parts), row[:size])
            assert all(one.doc_id < other.doc_id for one, other in pairwise(spans))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_id": "other"}, "dataset_id was 'other' when it was saved"),
        ({"selection": "other"}, "selection was 'other'"),
        ({"seed": 9}, "seed was 9 when it was saved, and is 1 now"),
        ({"sequence_length": 16}, "sequence_length was 16"),
        ({"batch_size": 8}, "batch_size was 8"),
        ({"order": None}, "order was None"),
        ({"g": 3}, "g = 3 is not a multiple of the batch size 4"),
        ({"g": -4}, "g = -4"),
        ({"g": "4"}, "g = '4'"),
    ],
)
def test_refuses_a_state_that_would_not_go_on_the_same(view, change, message):
    source = loader(view)
    with pytest.raises(TrainingError, match=message):
        source.load_state({**source.state(), **change})
    assert source.state()["g"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6, "world_size": 4}, "batch_size 6 .* not divisible by world_size 4"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not in"),
        ({"sequence_length": 0}, "must be at least 1"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"seed": -1}, "seed in"),
    ],
)
def test_refuses_sizes_that_cannot_be(view, options, message):
    with pytest.raises(RecipeError, match=message):
        loader(view, **options)


def test_refuses_a_view_without_a_token_to_predict(make_tokens):
    dataset = make_tokens([5, 7])
    with pytest.raises(TrainingError, match="'x > 99' keeps 0 documents and 0 tokens"):
        loader(dataset.select("x > 99"))


def test_a_failed_batch_does_not_move_the_state(make_tokens):
    dataset = make_tokens([5, 7])
    view = dataset.select()
    source = loader(view)
    flip(dataset.folder / dataset.entries[0].path, dataset.shard(0).tokens_at)
    dataset._verified[:] = 0
    with pytest.raises(CorruptError):
        source.next()
    assert source.state()["g"] == 0
