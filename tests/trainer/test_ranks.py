"""Several ranks on this machine, each a process that speaks gloo; see `rank_faults.py`."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import msgspec
import pytest
import torch

from shards.errors import RecipeError, TrainingError
from tests.trainer import rank_faults
from tests.trainer.test_loop import (
    Interrupter,
    flip,
    poison,
    same,
    without_facts,
    without_times,
)
from trainer import ranks as module
from trainer import watch
from trainer.checkpoint import load_checkpoint
from trainer.data import read_documents
from trainer.events import Event, read_events
from trainer.loop import train
from trainer.progress import Reporter
from trainer.ranks import ALONE, join_ranks
from trainer.records import RUN, RunRecord, read_metrics, read_record
from trainer.signals import PREEMPTED, Stopped

WIDE = {"COLUMNS": "1000"}
RECIPE = """
[train]
model = { dim = 16, layers = 1, heads = 2 }
parallel = "ddp"
"""
LIMIT_SECONDS = 300
"""Far more than any of this takes on a busy machine; a rank's own limits are far shorter."""


@pytest.fixture
def config(tiny):
    return tiny(batch_size=12, microbatches=6, parallel="ddp", rank_timeout_s=30.0)


@pytest.fixture
def arguments(folder, tmp_path):
    """Make the command line of a run in `tmp_path / name`."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def of(config, name):
        settings = {key: getattr(config, key) for key in config.__struct_fields__ if key != "model"}
        changes = [f"--set=train.{k}={json.dumps(v)}" for k, v in settings.items() if v is not None]
        data = [f"--data={folder}", f"--out={tmp_path / name}"]
        return ["train", str(recipe), *data, *changes]

    return of


@pytest.fixture
def ranks(arguments, tmp_path):
    """Run ranks until all have ended; return their exit codes and what each said."""
    context = multiprocessing.get_context("forkserver")  # imports torch once for all of them
    context.set_forkserver_preload(["tests.trainer.rank_faults"])
    started = []

    def run(count, config, name, fault="none:0:0"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        fixed = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        said = [tmp_path / f"{name}-{rank}.txt" for rank in range(count)]
        for rank in range(count):
            environment = fixed | {"RANK": str(rank), "FAULT": fault} | WIDE
            target = (arguments(config, name), environment, str(said[rank]))
            started.append(context.Process(target=rank_faults.main, args=target))
            started[-1].start()
        for process in started[-count:]:
            process.join(LIMIT_SECONDS)
        return [process.exitcode for process in started[-count:]], [f.read_text() for f in said]

    yield run
    for process in started:
        process.kill()
        process.join()
        process.close()


@pytest.fixture
def alone(dataset, tmp_path):
    """Make the run in this process."""
    valid = read_documents(dataset, "split == 'valid' and dropped == ''", 400)

    def run(config, name, reporter=None):
        view = dataset.select("split == 'train'")
        return train(view, valid, config, tmp_path / name, reporter or Reporter(quiet=True))

    return run


def assert_same_run(tmp_path, *names):
    """Records, metrics and the whole state of the last checkpoint, bit for bit."""
    first, *others = (read_record(tmp_path / name / RUN, RunRecord) for name in names)
    for name, record in zip(names[1:], others, strict=True):
        # How many files a checkpoint has follows from the number of ranks, what is in it does not.
        differ = ("config", "checkpoint_sha256", "seal")
        ours = {field: getattr(first, field) for field in differ}
        assert without_facts(msgspec.structs.replace(record, **ours)) == without_facts(first)
        states = [load_checkpoint(tmp_path / n, first.run_key).state for n in (names[0], name)]
        assert same(*states)
        rows = [without_times(read_metrics(tmp_path / n, 99)) for n in (names[0], name)]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_ranks_then_one_then_two_end_as_one(ranks, alone, config, tmp_path, parallel):
    """A SIGTERM that reaches rank 1 alone stops both after the same step."""
    config = msgspec.structs.replace(config, parallel=parallel)
    alone(config, "one")
    codes, said = ranks(2, config, "many", "stop:1:5")
    assert codes == [PREEMPTED] * 2, said
    assert "SIGTERM at step 5 of 12" in said[0]
    with pytest.raises(Stopped):
        alone(config, "many", Interrupter(8, signal.SIGTERM))
    codes, said = ranks(2, config, "many")
    assert codes == [0, 0], said
    assert "goes on from step 8" in said[0]
    assert said[1] == ""
    assert_same_run(tmp_path, "one", "many")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_ranks_stop_together_before_the_first_step_and_after_the_last(
    ranks, alone, config, tmp_path, parallel
):
    """A signal reaches rank 1 alone, while it is made and while it validates."""
    config = msgspec.structs.replace(config, parallel=parallel)
    alone(config, "one")
    for fault, words, step in (
        ("stop-begin:1:0", "SIGTERM before a step was taken", 0),
        ("stop-end:1:0", "SIGTERM in the validation after the last of 12 steps", 12),
    ):
        codes, said = ranks(2, config, "many", fault)
        assert codes == [PREEMPTED] * 2, said
        assert all(words in text for text in said)
        assert read_events(tmp_path / "many")[-1] == Event(step, "stopped", "SIGTERM")
    codes, said = ranks(2, config, "many", "stop-finish:0:0")  # the other has done its part
    assert codes == [PREEMPTED, 0], said
    assert read_events(tmp_path / "many")[-1] == Event(12, "stopped", "SIGTERM")
    assert ranks(2, config, "many")[0] == [0, 0]
    assert read_events(tmp_path / "many") == []
    assert_same_run(tmp_path, "one", "many")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_ranks_go_back_from_a_spike_to_the_weights_of_one(
    ranks, alone, config, tmp_path, monkeypatch, parallel
):
    rolling = {"spike": "rollback", "spike_sigma": 6.0, "checkpoint_every": 20, "steps": 76}
    config = msgspec.structs.replace(config, parallel=parallel, eval_every=40, **rolling)
    with monkeypatch.context() as patched:
        poison(patched, {70}, 50.0)
        assert alone(config, "one").facts["undone_steps"] == 9
    codes, said = ranks(2, config, "many", "spike:0:70")
    assert codes == [0, 0], said
    assert "step 70 skipped: loss 50 > mean" in said[0]
    assert "back to the weights of step 60" in said[0]
    assert_same_run(tmp_path, "one", "many")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_no_rank_waits_for_one_that_finds_every_checkpoint_damaged(
    ranks, alone, config, tmp_path, parallel
):
    config = msgspec.structs.replace(config, parallel=parallel)
    with pytest.raises(Stopped):
        alone(config, "hit", Interrupter(5, signal.SIGTERM))
    for file in (tmp_path / "hit").glob("*.safetensors"):
        flip(file)
    codes, said = ranks(2, config, "hit")
    assert codes == [1, 1]
    for text in said:
        assert "no good checkpoint is left: remove" in text
        assert "rank 0 of 2 failed" not in text  # each says it itself


def test_a_killed_rank_is_named_and_torchrun_goes_on_to_the_same_result(
    arguments, alone, config, tmp_path
):
    alone(config, "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node=2", "--max-restarts=1", "-m", "tests.trainer.rank_faults"]
    done = subprocess.run(
        [*torchrun, *options, *arguments(config, "many")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "FAULT": "once:1:8"} | WIDE,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    said = done.stderr
    assert done.returncode == 0
    assert "rank 1 of 2 is gone" in said
    assert "goes on from step 6" in said
    assert_same_run(tmp_path, "one", "many")


def test_a_hung_rank_is_named_and_ends_the_job_in_time(ranks, config):
    config = msgspec.structs.replace(config, rank_timeout_s=3.0)
    codes, said = ranks(2, config, "hung", "hang:1:5")
    assert codes == [1, 1]
    for text in said:
        assert "rank 1 of 2 hangs" in text
    assert "nothing came within 3 s" in said[0]


def test_a_flipped_bit_of_one_weight_is_found_and_the_rank_named(ranks, config, tmp_path):
    config = msgspec.structs.replace(config, replica_check_every=2, checkpoint_every=0)
    codes, said = ranks(3, config, "flipped", "flip:1:5")
    assert codes == [1, 1, 1]
    assert "step 6: the weights of rank 1 of 3 differ from all others" in said[0]
    assert not (tmp_path / "flipped" / RUN).exists()


def test_the_error_of_one_rank_is_what_the_others_say(ranks, config):
    codes, said = ranks(2, config, "failed", "fail:1:3")
    assert codes == [1, 1]
    assert "rank 1 of 2 failed: tokens/00000.arrow: block 7 was changed" in said[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": "none"}, "'none', but 2 ranks were started"),
        ({"microbatches": 3}, "microbatches = 3 is not divisible by the 2 ranks"),
    ],
)
def test_what_ranks_cannot_do_is_an_error(config, monkeypatch, changes, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    changed = msgspec.structs.replace(config, **changes)
    with pytest.raises(RecipeError, match=message), join_ranks(changed, "cpu"):
        pass


def test_without_torchrun_a_rank_is_alone(config):
    with join_ranks(config, "cpu") as ranks:
        assert ranks is ALONE
    assert ranks.gather([1.0, 2.0]) == [[1.0, 2.0]]
    assert ranks.share("x") == "x"
    assert torch.equal(ranks.join(torch.ones(2)), torch.ones(2))


class Nccl:
    """Notes what would go to `torch.distributed` and `torch.cuda` on a machine with GPUs."""

    def __init__(self, monkeypatch):
        self.log = []
        for key, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
            monkeypatch.setenv(key, value)
        store = torch.distributed.HashStore()
        monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
        for name in ("init_process_group", "new_group", "destroy_process_group"):
            monkeypatch.setattr(torch.distributed, name, self.noted(name))
        for name in ("set_device", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, self.noted(name))
        monkeypatch.setattr(watch, "BEAT_SECONDS", 0.01)

    def noted(self, name):
        def call(*arguments, **options):
            self.log.append((name, *arguments, options.get("backend"), options.get("device_id")))

        return call

    def names(self):
        return [name for name, *_ in self.log]


def test_a_rank_on_a_gpu_takes_it_before_it_joins_and_waits_inside_exchanges(config, monkeypatch):
    nccl, gpu = Nccl(monkeypatch), torch.device("cuda", 1)
    with join_ranks(config, "cuda") as ranks:
        assert nccl.log == [
            ("set_device", gpu, None, None),
            ("init_process_group", "nccl", None, gpu),
            ("new_group", "gloo", None),
        ]
        with ranks.together():
            assert nccl.names()[3:] == []
        assert nccl.log[3:] == [("synchronize", gpu, None, None)]
    assert nccl.names()[4:] == ["destroy_process_group"]


def test_a_rank_that_fails_on_a_gpu_does_not_wait_for_the_others(config, monkeypatch):
    nccl = Nccl(monkeypatch)
    with pytest.raises(TrainingError, match="no data"), join_ranks(config, "cuda"):
        raise TrainingError("no data")
    assert "destroy_process_group" not in nccl.names()
