import math
import os
import signal

import numpy as np
import pytest
import torch

from shards.errors import PlatformError, TrainingError
from trainer.checkpoint import load_checkpoint
from trainer.config import TrainConfig
from trainer.data import read_documents
from trainer.loop import choose_device, run_key, train
from trainer.progress import Reporter
from trainer.records import METRICS, RUN, read_metrics, read_valid

TRAIN = "split == 'train'"
TIMES = {"seconds", "tokens_per_s", "wait_share"}


class Interrupter(Reporter):
    """Sends this process a signal after a step, as ^C would."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        super().__init__(quiet=True)
        self.at, self.number = at, number
        self.seen: list[int] = []

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        self.seen.append(step)
        if step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def valid(dataset):
    return read_documents(dataset, "split == 'valid' and dropped == ''", 400)


@pytest.fixture
def run(dataset, valid, tmp_path):
    def run_in(name: str, config: TrainConfig, reporter: Reporter | None = None):
        view = dataset.select(TRAIN)
        return train(view, valid, config, tmp_path / name, reporter or Reporter(quiet=True))

    return run_in


def final_state(folder, record):
    return load_checkpoint(folder, record.run_key)[1]


def same(left, right) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def without_times(rows):
    return [{k: getattr(r, k) for k in r.__struct_fields__ if k not in TIMES} for r in rows]


def test_a_run_learns_and_records_what_it_did(run, tiny, dataset, valid, tmp_path):
    config = tiny(steps=40, eval_every=20, learning_rate=0.05, embedding_learning_rate=0.05)
    record = run("a", config)
    rows = read_metrics(tmp_path / "a", 40)
    assert [r.step for r in rows] == list(range(1, 41))
    assert rows[0].loss == pytest.approx(math.log(19), abs=1e-4)
    assert rows[-1].loss < rows[0].loss - 0.3
    assert [p.step for p in record.curve] == [20, 40]
    assert record.curve[-1].valid_bpb == record.bpb
    bits, sizes = read_valid(tmp_path / "a", record.valid_sha256)
    assert bits.sum() / sizes.sum() == record.bpb
    assert np.array_equal(sizes, valid.bytes)
    view = dataset.select(TRAIN)
    assert record.tokens == 40 * 8 * 16
    assert record.tokens - 16 < record.unique_tokens <= record.tokens  # the tail sample is short
    assert record.available_tokens == view.tokens
    assert record.epochs == record.tokens / view.tokens
    assert 0 <= record.facts["wait_share"] <= 1
    assert record.baselines.bigram < record.baselines.unigram


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_as_if_it_had_not_been(run, tiny, tmp_path, number):
    whole = run("whole", tiny())
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", tiny(), Interrupter(5, number))
    assert signal.getsignal(number) is before
    assert not (tmp_path / "stopped" / RUN).exists()
    rest = Interrupter(0)
    resumed = run("stopped", tiny(), rest)
    assert rest.seen == list(range(6, 13))
    assert resumed.valid_sha256 == whole.valid_sha256
    assert resumed.curve == whole.curve
    assert same(*(final_state(tmp_path / name, whole) for name in ("whole", "stopped")))
    rows = [without_times(read_metrics(tmp_path / name, 99)) for name in ("whole", "stopped")]
    assert rows[0] == rows[1]


def test_after_a_crash_it_goes_on_from_the_last_checkpoint(run, tiny, tmp_path):
    class Crash(Interrupter):
        def step(self, step: int, loss: float, tokens_per_s: float) -> None:
            if step == self.at:
                raise OSError("the machine went away")

    whole = run("whole", tiny())
    with pytest.raises(OSError, match="went away"):
        run("crashed", tiny(), Crash(8))
    rest = Interrupter(0)
    assert run("crashed", tiny(), rest).valid_sha256 == whole.valid_sha256
    assert rest.seen[0] == 7
    assert len((tmp_path / "crashed" / METRICS).read_bytes().splitlines()) == 12


def test_a_finished_run_is_skipped_and_another_one_replaces_it(run, tiny):
    first = run("a", tiny())
    reporter = Interrupter(0)
    assert run("a", tiny(checkpoint_every=0), reporter) == first
    assert reporter.seen == []
    other = run("a", tiny(seed=2), reporter)
    assert reporter.seen == list(range(1, 13))
    assert other.run_key != first.run_key
    assert other.valid_sha256 != first.valid_sha256


def test_the_run_key_follows_data_and_settings(dataset, valid, tiny):
    view = dataset.select(TRAIN)
    key = run_key(view, valid, tiny())
    assert key == run_key(dataset.select("split != 'valid'"), valid, tiny())
    others = [
        run_key(dataset.select("split == 'train' and dropped == ''"), valid, tiny()),
        run_key(view, read_documents(dataset, "split == 'valid'", 300), tiny()),
        run_key(view, valid, tiny(learning_rate=0.02)),
        run_key(view, valid, tiny(seed=9)),
    ]
    assert len({key, *others}) == 5


def test_a_loss_that_is_not_finite_stops_the_run(run, tiny, tmp_path):
    with pytest.raises(TrainingError, match=r"step \d+: loss .*train.learning_rate"):
        run("a", tiny(learning_rate=1e30, embedding_learning_rate=1e30, grad_clip=0.0))
    assert not (tmp_path / "a" / RUN).exists()


def test_a_gpu_that_is_not_there_is_an_error(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(tiny()).type == "cpu"
    with pytest.raises(PlatformError, match="'cuda'"):
        choose_device(tiny(device="cuda"))
