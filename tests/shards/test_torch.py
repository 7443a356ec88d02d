import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from shards.errors import CorruptError, RecipeError, TrainingError
from shards.loader import Loader
from shards.torch import LoaderDataset, TorchLoader

from .conftest import flip


@pytest.fixture
def dataset(make_tokens):
    return make_tokens([5, 7, 3, 9, 11, 2] * 4)


def loader(dataset):
    return Loader(dataset.select(), sequence_length=8, batch_size=4, seed=1)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_gives_the_loaders_batches_and_the_state_of_what_was_consumed(dataset, depth):
    plain = loader(dataset)
    with TorchLoader(loader(dataset), depth=depth) as batches:
        for _ in range(12):
            assert batches.state() == plain.state()
            expected = plain.next()
            inputs, targets = next(batches)
            assert inputs.dtype == targets.dtype == torch.int64
            np.testing.assert_array_equal(inputs, expected.inputs)
            np.testing.assert_array_equal(targets, expected.targets)


@pytest.mark.parametrize("depth", [0, 2])
def test_goes_on_from_a_state_and_after_close(dataset, depth):
    with TorchLoader(loader(dataset), depth=depth) as batches:
        next(batches)
        state = batches.state()
        second, third = next(batches)[0], next(batches)[0]
        batches.load_state(state)
        assert torch.equal(next(batches)[0], second)
        batches.close()
        assert torch.equal(next(batches)[0], third)


def test_batches_are_not_overwritten_by_later_ones(dataset):
    with TorchLoader(loader(dataset), depth=2) as batches:
        first = next(batches)[0]
        copy = first.clone()
        for _ in range(6):
            next(batches)
        assert torch.equal(first, copy)


def test_close_ends_the_thread(dataset):
    before = threading.active_count()
    batches = TorchLoader(loader(dataset), depth=2)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_of_the_thread_is_raised_where_the_batch_is_taken(dataset, depth):
    source = loader(dataset)
    flip(dataset.folder / dataset.entries[0].path, dataset.shard(0).tokens_at)
    dataset._verified[:] = 0
    batches = TorchLoader(source, depth=depth)
    for _ in range(2):  # and again, instead of a hang, for who tries again
        with pytest.raises(CorruptError, match="block 0"):
            next(batches)


def test_refuses_a_negative_depth(dataset):
    with pytest.raises(RecipeError, match="got -1"):
        TorchLoader(loader(dataset), depth=-1)


def test_a_torch_data_loader_gives_the_same_batches_and_goes_on_from_a_state(dataset):
    plain, source = loader(dataset), LoaderDataset(loader(dataset))
    batches = iter(DataLoader(source, batch_size=None))
    for _ in range(9):  # over the end of an epoch
        state = source.state_dict()
        assert state == plain.state()
        expected = plain.next()
        inputs, targets = next(batches)
        assert inputs.dtype == targets.dtype == torch.int64
        np.testing.assert_array_equal(inputs, expected.inputs)
        np.testing.assert_array_equal(targets, expected.targets)
    other = LoaderDataset(loader(dataset))
    other.load_state_dict(state)
    again, _ = next(iter(DataLoader(other, batch_size=None)))
    np.testing.assert_array_equal(again, expected.inputs)
    with pytest.raises(TrainingError, match="seed was 5"):
        other.load_state_dict({**state, "seed": 5})


def test_worker_processes_are_refused(dataset, monkeypatch):
    class Info:
        num_workers = 2

    monkeypatch.setattr("shards.torch.get_worker_info", Info)
    with pytest.raises(RecipeError, match="num_workers = 2: the loader needs no worker"):
        next(iter(LoaderDataset(loader(dataset))))
