"""Two ranks' watches in one process, with a store in memory."""

import pytest
import torch
from torch.distributed import HashStore

from shards.errors import TrainingError
from trainer import watch
from trainer.watch import Watch


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(watch, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0.2)
    return HashStore()


def test_a_rank_that_does_not_beat_is_gone(store):
    with Watch(store, 0, 2, 60), Watch(store, 1, 2, 60) as dead:
        dead.__exit__()
        with pytest.raises(TrainingError, match=r"rank 1 of 2 is gone: killed"):
            fail(store)


def test_a_rank_that_never_came_is_gone(store):
    with pytest.raises(TrainingError, match=r"rank 1 of 2 is gone"):
        fail(store)


def test_a_rank_that_beats_and_does_not_come_hangs(store):
    with Watch(store, 1, 2, 60), pytest.raises(TrainingError, match=r"rank 1 of 2 hangs.*rank 0"):
        fail(store)


def test_what_a_rank_said_before_it_ended_comes_first(store):
    Watch(store, 1, 2, 60).failed("rank 1 of 2 failed: no data")
    Watch(store, 1, 2, 60).failed("something that followed from it")
    with pytest.raises(TrainingError, match=r"^rank 1 of 2 failed: no data$"):
        fail(store)


def test_memory_that_runs_out_is_nobodys_fault(store):
    with pytest.raises(torch.OutOfMemoryError), Watch(store, 0, 2, 60).exchange():
        raise torch.OutOfMemoryError("no memory")


def test_an_exchange_inside_another_does_not_end_it(store):
    mine = Watch(store, 0, 2, 60)
    with mine.exchange():
        since = mine._waits_since
        with mine.exchange():
            assert mine._waits_since >= since
        assert mine._waits_since == since
    assert mine._waits_since is None
    assert store.get("entered/0") == b"2"


def fail(store):
    mine = Watch(store, 0, 2, 60)
    with mine.exchange():
        raise RuntimeError("Connection closed by peer")
