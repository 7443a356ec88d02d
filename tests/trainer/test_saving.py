"""Threads are held up by events here, not by time."""

import threading

import msgspec
import pytest
import torch

from shards.errors import TrainingError
from trainer import saving
from trainer.checkpoint import Piece, load_checkpoint
from trainer.history import Times
from trainer.ranks import ALONE, Ranks
from trainer.saving import Saver

LIMIT_SECONDS = 60


@pytest.fixture
def gate(monkeypatch):
    """Hold up every writer until it is set."""
    opened = threading.Event()
    write = saving.write_part

    def slow(*arguments):
        assert opened.wait(LIMIT_SECONDS)
        return write(*arguments)

    monkeypatch.setattr(saving, "write_part", slow)
    return opened


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU, so that it must be waited for."""

    is_cuda = True
    device = torch.device("cuda", 1)
    __torch_function__ = torch._C._disabled_torch_function_impl


def state_of(weights, step=1):
    return {"step": step, "model": {"w": weights}}


def loaded(folder):
    return load_checkpoint(folder, "key").state


def test_what_is_written_is_what_the_weights_were_and_the_run_goes_on(tiny, tmp_path, gate):
    weights = torch.ones(4)
    with Saver(tmp_path, "key", tiny(), ALONE, cut=False) as saver:
        saver.save(1, state_of(weights), Times())
        weights.zero_()  # the run takes its next step while nothing is on the disk yet
        assert load_checkpoint(tmp_path, "key") is None
        gate.set()
        assert saver.finish().step == 1
    assert torch.equal(loaded(tmp_path)["model"]["w"], torch.ones(4))


def test_two_are_never_written_at_once(tiny, tmp_path, gate):
    weights = torch.zeros(2)
    with Saver(tmp_path, "key", tiny(), ALONE, cut=False) as saver:
        saver.save(1, state_of(weights, 1), Times())
        threading.Timer(0.05, gate.set).start()
        saver.save(2, state_of(weights.add_(1), 2), Times())
        assert saver.last.step == 1  # it waited for the first
    found = loaded(tmp_path)
    assert found["step"] == found["model"]["w"][0] + 1 == 2


def test_what_fails_on_the_thread_is_raised_in_the_run_once(tiny, tmp_path, monkeypatch):
    for error, message in (
        (TrainingError("no space left"), "^no space left$"),
        (ValueError("odd"), "checkpoint of step 3 failed: ValueError: odd"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(saving, "write_part", fail)
        with Saver(tmp_path, "key", tiny(), ALONE, cut=False) as saver:
            saver.save(3, state_of(torch.ones(1)), Times())
            with pytest.raises(TrainingError, match=message):
                saver.finish()
            saver.check()


def test_without_a_thread_it_is_there_at_once_and_copies_nothing(tiny, tmp_path):
    with Saver(tmp_path, "key", tiny(checkpoint_async=False), ALONE, cut=False) as saver:
        saver.save(1, state_of(torch.ones(1)), Times())
        assert saver.last.step == 1
        assert not saver._buffers


class Board(Ranks):
    """One of two ranks; both leave their texts on the same board."""

    def __init__(self, rank, texts):
        self.rank, self.world_size, self.texts = rank, 2, texts

    def post(self, name, text):
        self.texts[name, self.rank] = text

    def posted(self, name):
        found = [self.texts.get((name, rank)) for rank in range(2)]
        return None if None in found else found


def piece(rank):
    return {"step": 1, "w": Piece(torch.full((1, 2), float(rank)), 0, rank, 2)}


def test_a_checkpoint_is_made_when_every_rank_has_written_its_part(tiny, tmp_path):
    texts = {}
    savers = [Saver(tmp_path, "key", tiny(), Board(r, texts), cut=True) for r in range(2)]
    with savers[0], savers[1]:
        savers[0].save(1, piece(0), Times())
        assert load_checkpoint(tmp_path, "key") is None
        savers[1].save(1, piece(1), Times())
        assert savers[1].finish() is None
        assert len(savers[0].finish().parts) == 2
    assert loaded(tmp_path)["w"].tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_a_part_that_never_comes_is_an_error_and_holds_up_no_run_that_ends(tiny, tmp_path):
    late = msgspec.structs.replace(tiny(), rank_timeout_s=0.1)
    with Saver(tmp_path, "key", late, Board(0, {}), cut=True) as saver:
        saver.save(1, piece(0), Times())
        with pytest.raises(TrainingError, match=r"not all of 2 ranks .* step 1 within 0\.1 s"):
            saver.finish()
    with Saver(tmp_path, "key", tiny(), Board(0, {}), cut=True) as saver:
        saver.save(1, piece(0), Times())
        saver.__exit__(KeyError)  # the run ends with an error: 30 s of waiting would hide it
    assert load_checkpoint(tmp_path, "key") is None


def test_copies_from_a_gpu_are_waited_for_before_the_thread_reads_them(tiny, tmp_path, monkeypatch):
    log, empty = [], torch.empty

    def unpinned(shape, *, dtype, pin_memory):
        log.append(f"pinned {pin_memory}")
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"wait {device}"))
    monkeypatch.setattr(saving, "write_part", lambda *_: log.append("write") or "part")
    monkeypatch.setattr(saving, "commit_checkpoint", lambda *_: None)
    state = {"model": {"a": torch.ones(4).as_subclass(OnGpu), "b": torch.ones(4)}}
    with Saver(tmp_path, "key", tiny(), ALONE, cut=False) as saver:
        saver.save(1, state, Times())
        saver.finish()
        assert log == ["pinned True", "pinned False", "wait cuda:1", "write"]
        saver.save(2, state_of(torch.ones(4)), Times())  # none of a GPU
        saver.finish()
    assert log[4:] == ["pinned False", "write"]
