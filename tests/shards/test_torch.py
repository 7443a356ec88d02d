import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from shards.errors import CorruptError, RecipeError, TrainingError
from shards.loader import Loader
from shards.torch import CudaLane, LoaderDataset, Ring, TorchLoader

from .conftest import flip


@pytest.fixture
def dataset(make_tokens):
    return make_tokens([5, 7, 3, 9, 11, 2] * 4)


def loader(dataset, packing="none"):
    return Loader(dataset.select(), sequence_length=8, batch_size=4, seed=1, packing=packing)


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


class LateLane:
    """A device that copies as late as it may: when somebody waits for it."""

    def __init__(self, device=None):
        self.pinned_count, self.pending, self.waited = 0, [], 0

    def pinned(self, shape):
        self.pinned_count += 1
        return torch.full(shape, -7, dtype=torch.int64)

    def send(self, buffers):
        sent = [torch.full_like(buffer, -9) for buffer in buffers]
        copy = LateCopy(self, list(zip(sent, buffers, strict=True)))
        self.pending.append(copy)
        return sent, copy

    def receive(self, sent, done):
        done.synchronize()


class LateCopy:
    def __init__(self, lane, pairs):
        self.lane, self.pairs = lane, pairs

    def synchronize(self):
        self.lane.waited += 1
        for sent, buffer in self.pairs:
            sent.copy_(buffer)
        self.pairs = []


@pytest.mark.parametrize("packing", ["none", "best-fit"])
def test_a_pinned_buffer_is_filled_again_only_when_it_has_left(dataset, packing):
    lane, plain, source = LateLane(), loader(dataset, packing), loader(dataset, packing)
    ring, taken = Ring(lane, (4, 9), 3), []
    for number in range(9):  # the tail sample is among them
        taken.append((plain.next(), *ring.take(source)))
        assert lane.waited == max(0, number - 2)  # no sooner than it must, either
    assert lane.pinned_count == 6
    for expected, sent, done in taken:
        lane.receive(sent, done)
        assert len(sent) == (1 if expected.full else 2)
        np.testing.assert_array_equal(sent[0][:, :-1], expected.inputs)
        np.testing.assert_array_equal(sent[-1][:, 1:], expected.targets)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_batches_go_to_a_device_through_the_ring(dataset, depth, monkeypatch):
    monkeypatch.setattr("shards.torch.CudaLane", LateLane)
    plain = loader(dataset)
    with TorchLoader(loader(dataset), "cuda", depth=depth) as batches:
        for _ in range(12):
            assert batches.state() == plain.state()
            expected = plain.next()
            inputs, targets = next(batches)
            np.testing.assert_array_equal(inputs, expected.inputs)
            np.testing.assert_array_equal(targets, expected.targets)


def test_a_copy_has_its_own_stream_and_the_callers_stream_waits_for_it(monkeypatch):
    log = []

    class Event:
        def record(self, stream):
            log.append(f"record on {stream}")

    class Current:
        def wait_event(self, done):
            log.append("current waits")

    class Tensor:
        def to(self, device, non_blocking):
            log.append(f"copy to {device} {non_blocking}")
            return self

        def record_stream(self, stream):
            log.append("kept for current")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"side of {device}")
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Current())
    lane = CudaLane(torch.device("cuda"))
    lane.receive(*lane.send([Tensor()]))
    assert log == [
        "copy to cuda:3 True",
        "record on side of cuda:3",
        "current waits",
        "kept for current",
    ]


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
