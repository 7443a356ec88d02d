import math
import os
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from shards.errors import CorruptError, TrainingError
from trainer import saving
from trainer.checkpoint import load_checkpoint
from trainer.config import TrainConfig
from trainer.data import read_documents
from trainer.events import Event, read_events
from trainer.folder import LOCK, claim
from trainer.loop import run_key, train
from trainer.parallel import PARENT
from trainer.progress import Reporter
from trainer.ranks import Ranks
from trainer.records import METRICS, RUN, read_metrics, read_valid
from trainer.run import Run
from trainer.signals import Stopped

TRAIN = "split == 'train'"
TIMES = {"seconds", "tokens_per_s", "wait_share", "mfu", "memory_bytes"}


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


class Notes(Interrupter):
    """Keeps what is said."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killed(Interrupter):
    """Ends the run with no time for a checkpoint."""

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        if step == self.at:
            raise OSError("killed")


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
    return load_checkpoint(folder, record.run_key).state


def same(left, right) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def without_facts(record):
    return msgspec.structs.replace(record, facts={})


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
    assert all(r.mfu > 0 and r.memory_bytes > 1 << 20 for r in rows)
    assert record.facts["mfu_peak"]["source"] == "measured products of the model's shapes"
    assert rows[-1].valid_by_source == record.by_source
    assert rows[0].valid_by_source is None
    assert record.baselines.bigram < record.baselines.unigram


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_ends_as_if_it_had_not_been(run, tiny, tmp_path, number):
    whole = run("whole", tiny())
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stop:
        run("stopped", tiny(), Interrupter(5, number))
    assert isinstance(stop.value, Stopped) == (number != signal.SIGINT)
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


def test_cpu_time_is_counted_over_a_stop(run, tiny, monkeypatch):
    counted = []
    count = Run.count_cpu
    monkeypatch.setattr(Run, "count_cpu", lambda self: counted.append(count(self)) or counted[-1])
    with pytest.raises(Stopped):
        run("stopped", tiny(checkpoint_every=0), Interrupter(6, signal.SIGTERM))
    before = counted[-1]
    record = run("stopped", tiny(checkpoint_every=0))
    assert before > 0
    assert record.facts["cpu_seconds"] == counted[-1]
    assert counted == sorted(counted)  # what the first process spent is not lost
    assert counted[-1] > before


def test_a_run_whose_study_was_killed_stops_with_a_checkpoint(run, tiny, monkeypatch):
    whole = run("whole", tiny())
    monkeypatch.setenv(PARENT, str(os.getpid()))
    with pytest.raises(KeyboardInterrupt):
        run("orphan", tiny(checkpoint_every=0))
    monkeypatch.delenv(PARENT)
    rest = Interrupter(0)
    assert run("orphan", tiny(checkpoint_every=0), rest).valid_sha256 == whole.valid_sha256
    assert rest.seen[0] == 2


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


@pytest.mark.parametrize("lost", [(METRICS,), (METRICS, RUN), (RUN,)])
@pytest.mark.parametrize("stop", [5, 12])
def test_a_run_that_lost_its_other_files_goes_on_from_its_checkpoint(
    run, tiny, tmp_path, lost, stop
):
    whole = run("whole", tiny())
    if stop == 12:
        run("lost", tiny())
    else:
        with pytest.raises(Stopped):
            run("lost", tiny(), Interrupter(stop, signal.SIGTERM))
    (tmp_path / "lost" / RUN).unlink(missing_ok=True)
    for name in lost:
        (tmp_path / "lost" / name).unlink(missing_ok=True)
    rest = Notes(0)
    record = run("lost", tiny(), rest)
    assert rest.seen == list(range(stop + 1, 13))
    assert without_facts(record) == without_facts(whole)
    assert any("lacks" in note for note in rest.notes) == (METRICS in lost)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_damaged_checkpoint_costs_steps_and_not_the_run(run, tiny, tmp_path):
    whole = run("whole", tiny())
    with pytest.raises(Stopped):
        run("hit", tiny(), Interrupter(8, signal.SIGTERM))
    file = tmp_path / "hit/checkpoint-00000008.0-of-1.safetensors"
    flip(file)
    rest = Notes(0)
    assert without_facts(run("hit", tiny(), rest)) == without_facts(whole)
    assert rest.seen[0] == 7
    assert any("checkpoint-00000008.0-of-1.safetensors: expected" in note for note in rest.notes)
    (event,) = read_events(tmp_path / "hit")
    assert (event.step, event.kind) == (6, "damaged")


@pytest.mark.parametrize("stop", [7, 9])
def test_after_a_fall_back_there_is_still_one_to_fall_back_to(run, tiny, tmp_path, stop):
    """The next checkpoint is of an earlier or a later step than the damaged one."""
    whole = run("whole", tiny())
    with pytest.raises(Stopped):
        run("hit", tiny(), Interrupter(8, signal.SIGTERM))
    flip(tmp_path / "hit/checkpoint-00000008.0-of-1.safetensors")
    with pytest.raises(Stopped):
        run("hit", tiny(), Interrupter(stop, signal.SIGTERM))
    flip(tmp_path / f"hit/checkpoint-{stop:08d}.0-of-1.safetensors")
    rest = Interrupter(0)
    assert without_facts(run("hit", tiny(), rest)) == without_facts(whole)
    assert rest.seen[0] == 7


def test_a_run_never_removes_the_checkpoint_that_it_goes_on_from(run, tiny, tmp_path):
    with pytest.raises(Stopped):
        run("hit", tiny(), Interrupter(8, signal.SIGTERM))
    flip(tmp_path / "hit/checkpoint-00000008.0-of-1.safetensors")
    with pytest.raises(OSError, match="killed"):
        run("hit", tiny(keep_checkpoints=1, checkpoint_every=0), Killed(7))
    rest = Interrupter(0)
    run("hit", tiny(), rest)
    assert rest.seen[0] == 7


def test_a_run_in_a_folder_that_another_holds_fails_and_touches_nothing(
    run, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("trainer.folder.WAIT_SECONDS", 0.0)
    with claim(tmp_path / "a"), pytest.raises(TrainingError, match=f"process {os.getpid()} on"):
        run("a", tiny())
    assert [path.name for path in (tmp_path / "a").iterdir()] == [LOCK]


def test_a_checkpoint_that_cannot_be_written_stops_the_run(run, tiny, tmp_path, monkeypatch):
    """The thread fails at step 6; the checkpoint of step 3 is there, and the run ends there."""
    write = saving.write_part

    def fail_later(folder, step, *arguments):
        if step == 6:
            raise TrainingError("no space left")
        return write(folder, step, *arguments)

    whole = run("whole", tiny())
    seen = Interrupter(0)
    with monkeypatch.context() as patched:
        patched.setattr(saving, "write_part", fail_later)
        with pytest.raises(TrainingError, match="no space left"):
            run("full", tiny(), seen)
    assert seen.seen[-1] in {6, 7, 8, 9}  # never two at once: the next save waits for this one
    rest = Interrupter(0)
    assert without_facts(run("full", tiny(), rest)) == without_facts(whole)
    assert rest.seen[0] == 4


def full_disk(*_):
    return Path("/dev/full").open("ab", buffering=0)


@pytest.mark.parametrize("file", ["metrics", "events", "valid.npz", "begun"])
def test_a_disk_that_is_full_for_anything_else_says_for_what_and_costs_no_result(
    run, tiny, tmp_path, monkeypatch, file
):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    poison(monkeypatch, {5}, math.nan)
    whole = run("whole", tiny())
    with monkeypatch.context() as patched:
        match file:
            case "metrics":
                patched.setattr(Run, "open_metrics", full_disk)
                words = r"metrics\.jsonl: cannot be written at step 1: No space left"
            case "events":
                (tmp_path / "full").mkdir()
                (tmp_path / "full" / LOCK).touch()
                (tmp_path / "full/events.jsonl").symlink_to("/dev/full")
                patched.setattr("trainer.run.cut_events", lambda *_: None)
                words = r"events\.jsonl: cannot be written at step 5: No space left"
            case "begun":
                patched.setattr("trainer.run.write_begun", fails)
                words = r"begun\.json: cannot be written at step 0: No space left"
            case _:
                patched.setattr("trainer.loop.write_valid", fails)
                words = r"valid\.npz: cannot be written at step 12: No space left"
        with pytest.raises(TrainingError, match=f"{words} .*; make room and run the same"):
            run("full", tiny())
    (tmp_path / "full/events.jsonl").unlink(missing_ok=True)
    assert without_facts(run("full", tiny())) == without_facts(whole)


def test_writing_on_the_side_changes_nothing(run, tiny):
    aside = run("aside", tiny())
    assert run("in-line", tiny(checkpoint_async=False)).valid_sha256 == aside.valid_sha256
    assert run("aside", tiny(checkpoint_async=False)) == aside  # no part of the run's key


def test_a_checkpoint_says_where_it_comes_from(run, tiny, dataset, tmp_path):
    record = run("a", tiny())
    state = final_state(tmp_path / "a", record)
    assert state["identity"]["run_key"] == record.run_key
    assert state["identity"]["dataset_id"] == dataset.dataset_id
    assert state["identity"]["config"]["schedule"] == "wsd"
    assert (record.tokenizer_sha256, record.draw) == ("ab" * 32, "all")
    assert state["step"] == 12


def test_microbatches_take_the_same_step(run, tiny, tmp_path):
    for parts in (1, 2, 8):
        run(str(parts), tiny(microbatches=parts))
    losses = [[r.loss for r in read_metrics(tmp_path / name, 12)] for name in ("1", "2", "8")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def poison(monkeypatch, steps, value):
    """Make the loss that the loop sees at some steps something else, gradients untouched."""
    honest = Run._gradient

    def poisoned(self, inputs, targets):
        loss, norm = honest(self, inputs, targets)
        return value if self.step + 1 in steps else loss, norm

    monkeypatch.setattr(Run, "_gradient", poisoned)


def test_a_bad_step_is_skipped_recorded_and_the_same_when_resumed(run, tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {4, 5}, math.nan)
    whole = run("whole", tiny())
    assert [r.step for r in read_metrics(tmp_path / "whole", 12)] == [1, 2, 3, *range(6, 13)]
    assert [p.step for p in whole.curve] == [4, 8, 12]
    assert whole.facts["skipped_steps"] == 2
    with pytest.raises(Stopped):
        run("stopped", tiny(), Interrupter(5, signal.SIGTERM))
    assert read_events(tmp_path / "stopped")[-1] == Event(5, "stopped", "SIGTERM")
    assert without_facts(run("stopped", tiny())) == without_facts(whole)
    for name in ("whole", "stopped"):
        assert read_events(tmp_path / name) == [
            Event(step, "skipped", "loss nan is not finite") for step in (4, 5)
        ]


def test_a_spike_is_skipped_where_the_recipe_says_so(run, tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {70}, 50.0)
    run("off", tiny(steps=72))
    run("on", tiny(steps=72, spike_sigma=6.0))
    assert read_events(tmp_path / "off") == []
    (event,) = read_events(tmp_path / "on")
    assert event.step == 70
    assert event.detail.startswith("loss 50 > mean ")


def test_weights_that_are_cut_are_never_whole_in_memory(dataset, tiny, tmp_path, monkeypatch):
    class Two(Ranks):
        world_size = 2

    def seen(model, world_size, device):
        assert {p.device.type for p in model.parameters()} == {"meta"}
        raise StopIteration

    monkeypatch.setattr("trainer.run.shard", seen)
    config = tiny(parallel="fsdp2", microbatches=2)
    with pytest.raises(StopIteration):
        Run.begin(dataset.select(TRAIN), config, tmp_path, "key", Reporter(quiet=True), Two())


def test_a_gpu_whose_memory_is_full_says_what_helps(run, tiny, monkeypatch):
    def full(self, inputs, targets):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(Run, "_gradient", full)
    with pytest.raises(TrainingError, match=r"step 1: .*2\.00 GiB\.; raise train\.microbatches"):
        run("a", tiny())


def keeping_two(config):
    return msgspec.structs.replace(config, keep_checkpoints=2)


def rolling(tiny, **changes):
    changes = {"steps": 76, "checkpoint_every": 20, "spike_sigma": 6.0, "max_skipped": 12} | changes
    return tiny(spike="rollback", keep_checkpoints=1, **changes)


def test_a_spike_takes_the_run_back_and_leaves_out_the_batches_since(
    run, tiny, tmp_path, monkeypatch
):
    """The weights are those of a run that skipped steps 61 to 70, bit for bit."""
    with monkeypatch.context() as patch:
        poison(patch, set(range(61, 71)), math.nan)
        skipped = run("skipped", tiny(steps=76, max_skipped=12))
    poison(monkeypatch, {70}, 50.0)
    record = run("back", rolling(tiny))
    states = [final_state(tmp_path / n, r) for n, r in (("skipped", skipped), ("back", record))]
    assert all(same(states[0][part], states[1][part]) for part in ("model", "optimizers"))
    assert record.bpb == skipped.bpb
    (event,) = read_events(tmp_path / "back")
    assert (event.step, event.kind) == (70, "rolled_back")
    assert event.detail.endswith("; back to the weights of step 60")
    assert record.facts["skipped_steps"] == 1
    assert record.facts["undone_steps"] == 9
    steps = [row.step for row in read_metrics(tmp_path / "back", 76)]
    assert steps == [step for step in range(1, 77) if step != 70]  # updates that were made


@pytest.mark.parametrize("at", [80, 85, 90, 91])
def test_a_run_that_goes_back_is_the_same_when_it_was_stopped(run, tiny, tmp_path, monkeypatch, at):
    """A checkpoint that a signal made is no place to go back to, and pushes none of those out."""
    poison(monkeypatch, {90, 92}, 50.0)
    whole = run("whole", rolling(tiny, steps=96))
    with pytest.raises(Stopped):
        run("stopped", rolling(tiny, steps=96), Interrupter(at, signal.SIGTERM))
    again = run("stopped", rolling(tiny, steps=96))
    assert without_facts(again) == without_facts(whole)
    assert again.facts["undone_steps"] == whole.facts["undone_steps"] == 10
    names = ("whole", "stopped")
    assert read_events(tmp_path / names[0]) == read_events(tmp_path / names[1])
    rows = [without_times(read_metrics(tmp_path / name, 96)) for name in names]
    assert rows[0] == rows[1]


def test_what_a_spike_cannot_go_back_to(run, tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {70}, 50.0)
    run("none", rolling(tiny, checkpoint_every=80))  # none before it: its batch alone is skipped
    assert [event.kind for event in read_events(tmp_path / "none")] == ["skipped"]


class Loser(Interrupter):
    """Damages the checkpoint of step 80 after a step, as a disk would."""

    def __init__(self, at, folder):
        super().__init__(0)
        self.damage_at, self.folder = at, folder

    def step(self, step, loss, tokens_per_s):
        super().step(step, loss, tokens_per_s)
        if step == self.damage_at:
            written = self.folder / "checkpoint-00000080.json"
            deadline = time.monotonic() + 60  # the thread may be slow on a busy machine
            while not written.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            flip(self.folder / "checkpoint-00000080.0-of-1.safetensors")


@pytest.mark.parametrize(
    ("harm", "file"), [(flip, "0-of-1.safetensors"), (flip, "json"), (Path.unlink, "json")]
)
def test_a_run_goes_on_from_before_a_damaged_place_to_go_back_to(
    run, tiny, tmp_path, monkeypatch, harm, file
):
    poison(monkeypatch, {90}, 50.0)
    config = rolling(tiny, steps=96)
    whole = run("whole", config)
    with pytest.raises(Stopped):
        run("hit", keeping_two(config), Interrupter(85, signal.SIGTERM))
    harm(tmp_path / f"hit/checkpoint-00000080.{file}")
    rest = Notes(0)
    assert without_facts(run("hit", config, rest)) == without_facts(whole)
    assert rest.seen[0] == 61
    assert "to which a spike after step 85 would go back" in rest.notes[0]
    assert read_events(tmp_path / "hit")[-1].kind == "rolled_back"


def test_damage_that_a_spike_finds_says_what_starting_again_does(run, tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {90}, 50.0)
    config = rolling(tiny, steps=96)
    whole = run("whole", config)
    with pytest.raises(CorruptError, match=r"step 90 is a spike.* again: .* of step 60$"):
        run("hit", config, Loser(85, tmp_path / "hit"))
    rest = Interrupter(0)
    assert without_facts(run("hit", config, rest)) == without_facts(whole)
    assert rest.seen[0] == 61


def test_without_an_older_checkpoint_the_run_goes_on_until_it_spikes(
    run, tiny, tmp_path, monkeypatch
):
    """A spike may never come; if it does there is nothing but to start again."""
    config = rolling(tiny, steps=96)
    whole = run("whole", config)
    for spikes in ({90}, set()):
        with monkeypatch.context() as patch:
            poison(patch, spikes, 50.0)
            with pytest.raises(Stopped):
                run("hit", config, Interrupter(85, signal.SIGTERM))
            flip(tmp_path / "hit/checkpoint-00000080.0-of-1.safetensors")
            rest = Interrupter(0)
            if spikes:
                with pytest.raises(CorruptError, match=r"is good: remove .*hit/checkpoint-\* to"):
                    run("hit", config, rest)
                for path in (tmp_path / "hit").glob("checkpoint-*"):  # as the message says
                    path.unlink()
            else:
                assert without_facts(run("hit", config, rest)) == without_facts(whole)
            assert rest.seen[0] == 86


def test_only_where_it_decides_the_result_does_a_spike_rule_count(dataset, valid, tiny):
    view = dataset.select(TRAIN)
    keys = [
        run_key(view, valid, config)
        for config in (
            tiny(),
            tiny(checkpoint_every=7),
            rolling(tiny),
            rolling(tiny, checkpoint_every=10),
            tiny(steps=76, spike_sigma=6.0, max_skipped=12),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys[1:])) == 4


def test_too_many_bad_steps_in_a_row_stop_the_run(run, tiny, monkeypatch):
    poison(monkeypatch, {3, 4, 6, 7, 8}, math.inf)
    with pytest.raises(
        TrainingError, match=r"step 8: loss inf is not finite, the 3\. step in a row"
    ):
        run("a", tiny(max_skipped=2))


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
    with pytest.raises(TrainingError, match=r"step \d+: loss .*11. step.*train.learning_rate"):
        run("a", tiny(learning_rate=1e30, embedding_learning_rate=1e30, grad_clip=0.0))
    assert not (tmp_path / "a" / RUN).exists()
