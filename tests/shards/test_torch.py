import threading
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from shards.errors import CorruptError, RecipeError, TrainingError
from shards.loader import Loader
from shards.torch import LoaderDataset, TorchLoader, _Ring

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


def test_nothing_is_copied_twice_and_strides_never_change(dataset):
    batches = TorchLoader(loader(dataset), depth=0)
    for _ in range(8):  # the tail sample is among them
        inputs, targets = next(batches)
        assert inputs.stride() == targets.stride() == (9, 1)
        tail = bool((targets == -1).any())
        assert (targets.data_ptr() == inputs.data_ptr() + 8) != tail


@pytest.mark.parametrize("depth", [0, 3])
def test_memory_is_used_again_when_its_tensors_are_gone_and_not_before(dataset, depth):
    with TorchLoader(loader(dataset), depth=depth) as batches:
        kept = [next(batches) for _ in range(15)]
        assert len({inputs.data_ptr() for inputs, _ in kept}) == 15
        rows = [targets[1] for _, targets in kept]  # a view of a tensor holds it, too
        values = [row.clone() for row in rows]
        del kept
        for _ in range(40):
            next(batches)
        assert all(map(torch.equal, rows, values))
        del rows
        seen = {next(batches)[0].data_ptr() for _ in range(40)}
        # How many are under way at once is up to the scheduler; 40 new ones there are not.
        assert len(seen) <= 15 + depth + 4


class FakeEvent:
    """Stands in for torch.cuda.Event: whether a copy was started, and whether it was awaited."""

    log: ClassVar[list[str]] = []

    def synchronize(self):
        self.log.append(f"wait {id(self)}")

    def record(self, stream):
        self.log.append(f"sent {id(self)}")


def test_pinned_buffers_are_awaited_before_they_are_filled_again(dataset, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(FakeEvent, "log", [])
    ring = _Ring((4, 9), 3, torch.device("cpu"))
    plain, source = loader(dataset), loader(dataset)
    for _ in range(9):
        expected = plain.next()
        inputs, targets = ring.take(source)
        np.testing.assert_array_equal(inputs, expected.inputs)
        np.testing.assert_array_equal(targets, expected.targets)
    waits, sent = FakeEvent.log[::2], FakeEvent.log[1::2]
    assert [line[5:] for line in waits] == [line[5:] for line in sent]
    assert len(set(waits)) == 3
    assert waits[:3] == waits[3:6]


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
