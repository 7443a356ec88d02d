"""What a run reads: the same whatever the ranks, the prefetch depth, restarts and kills."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from shards.dataset import TokenDataset
from shards.loader import Loader
from shards.mixture_config import BLOCK, Stage
from shards.mixture_loader import MixtureLoader
from shards.torch import TorchLoader
from shards.window import Window

from .conftest import build_tokens

T, B = 8, 12
WORLDS = (1, 2, 3, 4, 6, 12)
STEPS = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return TokenDataset.open(
        build_tokens(tmp_path_factory.mktemp("d"), [5, 7, 3, 9, 11, 2] * 9, [13, 1, 6] * 9)
    )


def make(kind, dataset, rank, world_size, stages=None):
    options = {
        "sequence_length": T,
        "batch_size": B,
        "seed": 4,
        "rank": rank,
        "world_size": world_size,
    }
    if kind == "mixture":
        views = {"a": dataset.select("x < 5"), "b": dataset.select("x >= 5")}
        return MixtureLoader(views, stages or [Stage(0, {"a": 3, "b": 1})], **options)
    if kind == "packed":
        return Loader(dataset.select(), packing="best-fit", **options)
    window = {"window": Window(3, 4)} if kind == "windowed" else {}
    return Loader(dataset.select(), **options, **window)


KINDS = ["plain", "windowed", "mixture", "packed"]


def digest(inputs, targets):
    rows = np.concatenate([inputs, targets], axis=1)
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def together(parts):
    """Lay the rows of ranks 0, 1, … back into the global batch."""
    return [np.stack(rows, axis=1).reshape(B, T) for rows in zip(*parts, strict=True)]


def digests(ranks, steps):
    """Hash each global batch that the loaders of all ranks make."""
    found = []
    for _ in range(steps):
        batches = [rank.next() for rank in ranks]
        found.append(digest(*together([(batch.inputs, batch.targets) for batch in batches])))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_global_batches_are_the_same_for_every_world_size(dataset, kind):
    whole = digests([make(kind, dataset, 0, 1)], STEPS)
    assert len(set(whole)) == STEPS
    for W in WORLDS[1:]:
        assert digests([make(kind, dataset, rank, W) for rank in range(W)], STEPS) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_and_across_changes_of_the_world_size(dataset, kind):
    whole = digests([make(kind, dataset, 0, 1)], STEPS)
    found, state = [], None
    for steps, W in zip((3, 8, 1, 12, 7, 9), WORLDS, strict=True):
        ranks = [make(kind, dataset, rank, W) for rank in range(W)]
        for rank in ranks:
            if state:
                rank.load_state(state)
        found += digests(ranks, steps)
        state = json.loads(json.dumps(ranks[-1].state()))
        assert all(rank.state() == state for rank in ranks)
    assert found == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_and_for_every_prefetch_depth(dataset, kind, depth):
    whole = digests([make(kind, dataset, 0, 1)], 12)
    ranks = [TorchLoader(make(kind, dataset, rank, 2), depth=depth) for rank in range(2)]

    def take():
        return digest(*together([next(rank) for rank in ranks]))

    found = [take() for _ in range(5)]
    state = ranks[0].state()
    assert [take(), take()] == whole[5:7]
    for rank in ranks:
        rank.load_state(state)  # what was prepared is thrown away
    found += [take() for _ in range(7)]
    for rank in ranks:
        rank.close()
    assert found == whole


def test_a_change_of_the_mixture_on_the_way_is_the_same_for_all(dataset):
    first = Stage(0, {"a": 3, "b": 1})
    stages = [first, Stage(2 * BLOCK, {"a": 1, "b": 4})]
    steps = 3 * BLOCK // B
    whole = digests([make("mixture", dataset, 0, 1, stages)], steps)
    for W in (2, 6):
        ranks = [make("mixture", dataset, rank, W, stages) for rank in range(W)]
        assert digests(ranks, steps) == whole
    before = 2 * BLOCK // B
    unchanged = digests([make("mixture", dataset, 0, 1, [first])], steps)
    assert unchanged[:before] == whole[:before]
    assert unchanged[before + 1 :] != whole[before + 1 :]


@pytest.mark.parametrize("kind", ["plain", "windowed", "packed"])
def test_every_rank_takes_as_many_steps_and_all_together_each_sample_once(dataset, kind):
    for W in WORLDS:
        ranks = [make(kind, dataset, rank, W) for rank in range(W)]
        N = ranks[0].samples_per_epoch
        epochs = [[], []]
        for _ in range(-(-2 * N // B)):
            for rank in ranks:
                batch = rank.next()
                assert len(batch.indices) == B // W
                for g, row, size in zip(batch.indices, batch.tokens, batch.lengths, strict=True):
                    if g < 2 * N:
                        epochs[g // N].append((rank.locate(g), row[:size].tolist()))
        stories = [sorted(map(repr, epoch)) for epoch in epochs]
        assert len(stories[0]) == len(set(stories[0])) == N
        assert stories[0] == stories[1]


READER = """
import hashlib, json, sys, time
from pathlib import Path
from shards.atomic import write_atomic
from shards.dataset import TokenDataset
from shards.loader import Loader

folder, out, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
view = TokenDataset.open(folder).select()
loader = Loader(view, sequence_length=8, batch_size=12, seed=4)
state = out / "state.json"
if state.exists():
    loader.load_state(json.loads(state.read_bytes()))
with (out / "log").open("a") as log:
    while loader.state()["g"] < steps * 12:
        g = loader.state()["g"]
        print(g, hashlib.sha256(loader.next().tokens.tobytes()).hexdigest(), file=log, flush=True)
        time.sleep(0.002)
        if g // 12 % 5 == 4:
            write_atomic(state, json.dumps(loader.state()).encode())
"""


def test_killed_at_random_again_and_again_it_gives_the_uninterrupted_stream(dataset, tmp_path):
    steps, chance = 300, random.Random(5)
    command = [sys.executable, "-c", READER, str(dataset.folder), str(tmp_path), str(steps)]
    log = tmp_path / "log"
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command)
        goal = (log.stat().st_size if log.exists() else 0) + chance.randrange(3000, 7000)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size >= goal:
                time.sleep(chance.random() * 0.004)
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.001)
        kills += process.wait(60) == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills >= 3
    read = [line.split() for line in log.read_text().splitlines()]
    found = {}
    for g, value in read:
        assert found.setdefault(int(g), value) == value  # what is read again is the same
    source = make("plain", dataset, 0, 1)
    whole = {
        g: hashlib.sha256(source.next().tokens.tobytes()).hexdigest()
        for g in range(0, steps * B, B)
    }
    assert found == whole
    assert len(read) > steps  # some were read twice, or the kills came too early to matter
