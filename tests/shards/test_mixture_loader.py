import json

import numpy as np
import pytest

from shards.dataset import TokenDataset
from shards.errors import RecipeError, TrainingError
from shards.mixture_config import BLOCK, Stage
from shards.mixture_loader import MixtureLoader
from shards.torch import TorchLoader

from .conftest import build_tokens

T, B = 8, 64
STAGES = [Stage(0, {"low": 3, "high": 1}), Stage(2 * BLOCK, {"low": 1, "high": 3})]


@pytest.fixture
def views(make_tokens):
    dataset = make_tokens([5, 7, 3, 9, 11, 2] * 40, [13, 1, 6] * 30)
    return {"low": dataset.select("x < 5"), "high": dataset.select("x >= 5")}


def loader(views, stages=STAGES, **options):
    settings = {"sequence_length": T, "batch_size": B, "seed": 1, **options}
    return MixtureLoader(views, stages, **settings)


def rows_of(view):
    """All samples of a view as tuples."""
    stream = np.concatenate([document.tokens for document in view]).tolist()
    return [tuple(stream[k : k + T + 1]) for k in range(0, len(stream) - 1, T)]


def test_each_source_gives_each_of_its_samples_once_an_epoch_at_any_weight(views):
    source, seen = loader(views), {"low": [], "high": []}
    for _ in range(5 * BLOCK // B):  # the weights change on the way
        batch = source.next()
        for g, row, size in zip(batch.indices, batch.tokens, batch.lengths, strict=True):
            seen[source.source(int(g))].append((int(g), tuple(row[:size].tolist())))
    assert len(seen["low"]) == pytest.approx(2 * BLOCK * 3 / 4 + 3 * BLOCK / 4, abs=2)
    for name, view in views.items():
        expected = sorted(rows_of(view))
        samples = [sample for _, sample in seen[name]]
        # Samples are numbered per source in the order of blocks; inside a block they are dealt.
        for sample in expected:
            epochs = len(samples) / len(expected)
            assert abs(samples.count(sample) / expected.count(sample) - epochs) <= 2


def test_does_not_depend_on_world_size_and_goes_on_from_a_state(views):
    alone = loader(views)
    ranks = [loader(views, rank=rank, world_size=4) for rank in range(4)]
    for step in range(2 * BLOCK // B + 3):
        state = json.loads(json.dumps(alone.state()))
        whole = alone.next()
        for rank, part in enumerate(ranks):
            if step % 7 == 3:
                part.load_state(state)
            np.testing.assert_array_equal(part.next().tokens, whole.tokens[rank::4])
    assert len(json.dumps(state)) < 300


def test_a_schedule_that_differs_later_only_is_the_same_until_then(views):
    one, other = loader(views), loader(views, STAGES[:1])
    for _ in range(2 * BLOCK // B):
        np.testing.assert_array_equal(one.next().tokens, other.next().tokens)
    assert not np.array_equal(one.next().tokens, other.next().tokens)
    with pytest.raises(TrainingError, match=r"mixture was .* and is .* now"):
        other.load_state(one.state())


def test_locates_documents(views):
    source = loader(views)
    by_id = {d.doc_id: d.tokens for view in views.values() for d in view}
    batch = source.next()
    for g, row, size in zip(batch.indices, batch.tokens, batch.lengths, strict=True):
        parts = [by_id[s.doc_id][s.start : s.start + s.length] for s in source.locate(int(g))]
        np.testing.assert_array_equal(np.concatenate(parts), row[:size])


def test_ends_where_the_sources_are_used_up(views):
    source = loader(views, STAGES[:1], max_epochs={"low": 10, "high": 10})
    with TorchLoader(source, depth=0) as batches:
        for _ in range(source.mixture.end // B):
            next(batches)
        with pytest.raises(TrainingError, match="all sources are used up after"):
            next(batches)


def test_names_all_that_differs_in_a_state(views):
    source = loader(views)
    with pytest.raises(TrainingError, match=r"seed was 2 .*; batch_size was 128 .* and is 64 now"):
        source.load_state({**source.state(), "seed": 2, "batch_size": 128})


def test_refuses_empty_sources_and_several_tokenizers(views, tmp_path):
    empty = views["low"].dataset.select("x > 99")
    with pytest.raises(
        TrainingError, match="source 'none': no data: selection 'x > 99' keeps 0 documents"
    ):
        loader({**views, "none": empty})
    other = TokenDataset.open(build_tokens(tmp_path / "other", [5], vocab_size=500)).select()
    with pytest.raises(RecipeError, match="several tokenizers"):
        loader({**views, "other": other})
    with pytest.raises(IndexError, match="does not fit"):
        loader(views).next(np.empty((B, T), np.int64))
