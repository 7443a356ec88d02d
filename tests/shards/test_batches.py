"""From settings to batches: packing, windows and mixtures, alone and together."""

import json
from contextlib import closing
from typing import NamedTuple

import fsspec
import numpy as np
import pytest

from shards.batches import open_batches, open_sources, order_definitions
from shards.cache import CacheOptions
from shards.dataset import TokenDataset
from shards.errors import RecipeError, TrainingError
from shards.mixture_config import BLOCK, MixtureConfig, Stage

from .conftest import build_tokens

T, B, SEED = 8, 64, 5
MIXTURE = MixtureConfig(
    sources={"low": "x < 5", "high": "x >= 5"},
    stages=[
        Stage(0, {"low": 3, "high": 1}),
        Stage(BLOCK, {"high": 1}),
        Stage(2 * BLOCK, {"low": 1}),
    ],
)


class Settings(NamedTuple):
    sequence_length: int = T
    batch_size: int = B
    packing: str = "none"
    window_mb: int = 0
    mixture: MixtureConfig | None = None


@pytest.fixture
def view(make_tokens):
    return make_tokens([5, 7, 3, 9, 11, 2] * 40, [13, 1, 6] * 30).select("x != 3")


@pytest.mark.parametrize("packing", ["none", "best-fit"])
@pytest.mark.parametrize("mixture", [None, MIXTURE])
def test_world_size_and_stops_change_nothing_in_any_combination(view, packing, mixture):
    settings = Settings(packing=packing, mixture=mixture)
    alone = open_batches(view, settings, SEED)
    ranks = [open_batches(view, settings, SEED, rank=rank, world_size=4) for rank in range(4)]
    for step in range(3 * BLOCK // B):  # both changes of weights are on the way
        state = json.loads(json.dumps(alone.state()))
        whole = alone.next()
        for rank, part in enumerate(ranks):
            if step % 7 == 3:
                part.load_state(state)
            got = part.next()
            np.testing.assert_array_equal(got.tokens, whole.tokens[rank::4])
            np.testing.assert_array_equal(got.targets, whole.targets[rank::4])
    assert len(json.dumps(state)) < 300


@pytest.mark.parametrize("packing", ["none", "best-fit"])
@pytest.mark.parametrize("mixture", [None, MIXTURE])
def test_a_place_names_what_the_row_holds(view, packing, mixture):
    batches = open_batches(view, Settings(packing=packing, mixture=mixture), SEED)
    documents = {document.doc_id: document.tokens for document in view}
    for _ in range(BLOCK // B + 1):
        batch = batches.next()
    epochs = batches.epochs(batch.indices)
    for row, g in enumerate(batch.indices.tolist()):
        place = batches.place(g)
        spans = batches.locate(g)
        held = [documents[s.doc_id][s.start : s.start + s.length] for s in spans]
        np.testing.assert_array_equal(np.concatenate(held), batch.tokens[row][: batch.lengths[row]])
        assert place.source == ("high" if mixture else "")  # after the first change
        assert place.epoch == epochs[row]
        assert all(span.doc_id in documents for span in spans)


def test_every_sample_is_new_once(view):
    settings = Settings(mixture=MIXTURE)
    batches = open_batches(view, settings, SEED)
    new = sum(int((batches.epochs(batches.next().indices) == 0).sum()) for _ in range(48))
    per_source = [-(-(v.tokens - 1) // T) for v in open_sources(view, MIXTURE).values()]
    assert new == sum(per_source)
    alone = open_batches(view, Settings(), SEED)
    assert alone.first_pass == -(-(view.tokens - 1) // T)


def test_sources_lie_inside_the_view_and_may_be_the_datasets_own(view):
    found = open_sources(view, MIXTURE)
    assert found["low"].documents == view.dataset.select("x != 3 and x < 5").documents
    assert found["low"].selection_hash == view.dataset.select("x < 5 and x != 3").selection_hash
    assert found["low"].bytes + found["high"].bytes == view.bytes
    with pytest.raises(RecipeError, match="has no source 'wbe'; did you mean 'web'"):
        open_sources(view, MixtureConfig(stages=[Stage(0, {"wbe": 1})]))
    with pytest.raises(RecipeError, match="unknown column 'source_id'"):  # these tests' have none
        open_sources(view, MixtureConfig(stages=[Stage(0, {"web": 1})]))
    empty = MixtureConfig(sources={"none": "x > 99"}, stages=[Stage(0, {"none": 1})])
    with pytest.raises(TrainingError, match="source 'none': no data"):
        open_batches(view, Settings(mixture=empty), SEED)


def test_a_run_that_the_sources_do_not_last_for_is_refused_before_it_starts(view):
    capped = MixtureConfig(
        sources=MIXTURE.sources, stages=MIXTURE.stages[:1], max_epochs={"low": 20, "high": 20}
    )
    end = open_batches(view, Settings(mixture=capped), SEED, samples=BLOCK).mixture.end
    with pytest.raises(RecipeError, match=rf"used up after {end:,} samples, and the run reads"):
        open_batches(view, Settings(mixture=capped), SEED, samples=end + 1)


def test_definitions_are_those_of_the_rules_that_take_part():
    assert order_definitions(Settings()).keys() == {"order"}
    everything = Settings(packing="best-fit", window_mb=8, mixture=MIXTURE)
    assert order_definitions(everything).keys() == {"order", "packing", "window", "mixture"}


def test_a_cache_that_is_smaller_than_the_data_needs_windows(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.window._MIN_CHUNKS", 2)
    folder = build_tokens(tmp_path / "wide", [300_000 + i for i in range(40)])  # 23 MiB
    fsspec.filesystem("memory").put(str(folder), "memory://wide", recursive=True)
    all_of_it = MixtureConfig(sources={"all": "True"}, stages=[Stage(0, {"all": 1})])
    settings = Settings(sequence_length=4096, batch_size=16)
    local = TokenDataset.open(folder).select()
    cache = CacheOptions(tmp_path / "cache", 18 << 20, threads=2)
    with closing(TokenDataset.open("memory://wide", cache)) as dataset:
        view = dataset.select()
        with pytest.raises(
            RecipeError, match=r"set train.window_mb \(now 0\) to between 1 and h.* 8"
        ):
            open_batches(view, settings, SEED)
        with pytest.raises(RecipeError, match="packed rows hold documents from everywhere"):
            open_batches(view, settings._replace(packing="best-fit"), SEED)
        for mixture in (None, all_of_it):
            windows = settings._replace(window_mb=8, mixture=mixture)
            far, near = open_batches(view, windows, SEED), open_batches(local, windows, SEED)
            assert " windowed/1 " in far.identity["order"]
            for _ in range(4):  # the order is the recipe's, not the cache's
                np.testing.assert_array_equal(far.next().tokens, near.next().tokens)
    with pytest.raises(RecipeError, match=r"train.window_mb = 1: a window of 1,048,576 bytes"):
        open_batches(local, settings._replace(window_mb=1), SEED)
