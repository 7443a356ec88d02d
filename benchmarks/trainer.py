"""Speed of training on the CPU: tokens a CPU second, Muon against AdamW, the loader's share.

    python -m benchmarks.trainer [--quick] [--nanogpt PATH] [--litgpt [PYTHON]] [--prepared]
                                 [--ranks N]

Runs of the default model (`trainer.config`, one thread) on a dataset of Zipf-distributed tokens
made here. CPU time of the whole process, so that other work on the machine counts little; runs of
both optimisers take turns, and the median step is what counts. `loader_share` is the loader's CPU
time for a batch over the CPU time of a step. `ratio_nanogpt` and `ratio_litgpt` are our tokens a
CPU second over theirs for one model of 4.2 M parameters with AdamW, step by step in turns
(`compare`; the median of the turns' ratios), `…_wall` the same by the clock. PYTHON is the
interpreter that litgpt is installed for. With `--prepared`, `…_prepared` are the ratios to peers
whose processes were also given what `assay train` does for its own memory (`trainer.memory`).
With `--ranks`, `ordered_ms` and `all_reduce_ms` are the times of summing that model's gradients
over N processes on this machine, in the fixed order and as gloo does it, by turns.
"""

import argparse
import json
import math
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `assay train` does, before torch

import msgspec
import numpy as np
import pyarrow as pa
import torch

from benchmarks.corpus import cpu_seconds
from benchmarks.trainer_peers import Peer
from shards.atomic import write_atomic
from shards.dataset import TokenDataset, TokenView
from shards.loader import Loader
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry
from trainer.config import ModelConfig, TrainConfig
from trainer.data import read_documents
from trainer.loop import train
from trainer.model import Transformer
from trainer.progress import Reporter
from trainer.ranks import join_ranks
from trainer.reduce import OrderedSum

VOCABULARY, EOS = 4096, 0
DOCUMENTS, LENGTH = 4000, 500
OURS = "ours"
WARM_UP = 4
"""Steps of each run that are not counted: memory is touched for the first time."""

PEER = TrainConfig(
    model=ModelConfig(dim=256, layers=4, heads=4, tied=True),
    optimizer="adamw",
    sequence_length=128,
    batch_size=8,
    eval_every=0,
    checkpoint_every=0,
)
"""The model of the comparison with others: 4.2 M parameters, in all of them the same matrices."""


class Clock(Reporter):
    """Notes the CPU time at the end of each step."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.times: list[float] = []

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        self.times.append(time.process_time())

    def steps(self) -> list[float]:
        """CPU seconds of the steps that count; the last one holds a validation."""
        return [after - before for before, after in pairwise(self.times[WARM_UP - 1 : -1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 55 s on 2 cores")
    parser.add_argument("--nanogpt", metavar="PATH", type=Path, help="a clone of nanoGPT")
    parser.add_argument(
        "--litgpt",
        metavar="PYTHON",
        nargs="?",
        const=sys.executable,
        help="compare with litgpt; of this interpreter if it is not that one's",
    )
    parser.add_argument(
        "--prepared", action="store_true", help="also compare with peers of our memory settings"
    )
    parser.add_argument("--ranks", metavar="N", type=int, help="also sum gradients over N ranks")
    options = parser.parse_args()
    pythons = {"nanogpt": options.nanogpt and sys.executable, "litgpt": options.litgpt}
    pythons = {name: python for name, python in pythons.items() if python}
    rounds, steps = (2, 12 if pythons else 22) if options.quick else (5, 60)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder, "tokens"))
        shape = peer_shape(dataset, Path(folder), options.nanogpt)
        memory = {"": False, "_prepared": True} if options.prepared else {"": False}
        peers = {
            name + suffix: Peer(name, python, shape | {"prepared": prepared})
            for name, python in pythons.items()
            for suffix, prepared in memory.items()
        }
        ratios = {}
        if peers:  # first, while this process is as new as theirs
            ratios = compare(dataset, Path(folder), peers, 10 if options.quick else 60)
        for peer in peers.values():
            peer.close()
        found = measure(dataset, Path(folder), rounds, steps) | ratios
        if options.ranks:
            found |= sums_of_ranks(options.ranks, Path(folder))
        print(json.dumps(found))


def make_dataset(folder: Path, vocabulary: int = VOCABULARY) -> TokenDataset:
    """Write 2 M tokens in documents of 500, the last of which are for validation."""
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(2, vocabulary + 1)
    ids = rng.choice(np.arange(1, vocabulary), (DOCUMENTS, LENGTH), p=weights / weights.sum())
    ids[:, -1] = EOS
    offsets = np.arange(0, DOCUMENTS * LENGTH + 1, LENGTH)
    table = pa.table(
        {
            "doc_id": pa.array([rng.bytes(16) for _ in range(DOCUMENTS)], pa.binary(16)),
            "source_id": pa.array(np.zeros(DOCUMENTS, np.uint16)),
            "split": pa.array(["train"] * (DOCUMENTS - 2) + ["valid"] * 2),
            "dropped": pa.array([""] * DOCUMENTS),
            "bytes": pa.array(np.full(DOCUMENTS, 4 * LENGTH)),
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(ids.ravel())),
        }
    )
    tokenizer = TokenMetadata("0" * 64, vocabulary, EOS)
    data = encode_token_shard(table, tokenizer)
    name = "tokens/00000-of-00001.arrow"
    write_atomic(folder / name, data)
    content = Content(
        kind="tokens",
        shards={"tokens": [shard_entry(name, data, documents=DOCUMENTS, tokens=ids.size)]},
        total=Counts(tokens=ids.size),
        sources={"made": Counts()},
        tokenizer={"sha256": "0" * 64, "vocab_size": vocabulary, "eos_id": EOS},
    )
    manifest = encode_manifest(new_manifest(content, stage_key="0" * 32, run={}))
    write_atomic(folder / MANIFEST, manifest)
    return TokenDataset.open(folder)


def measure(dataset: TokenDataset, folder: Path, rounds: int, steps: int) -> dict[str, float]:
    """Train with both optimisers in turn; return what the benchmark prints."""
    view, valid = dataset.select("split == 'train'"), read_documents(dataset, "split == 'valid'")
    base = TrainConfig(steps=steps, eval_every=0, checkpoint_every=0)
    seconds: dict[str, list[float]] = {"muon": [], "adamw": []}
    for number in range(rounds):
        for name in seconds:
            config = msgspec.structs.replace(base, optimizer=name)
            clock = Clock()
            train(view, valid, config, folder / f"{name}-{number}", clock)
            seconds[name] += clock.steps()
    muon, adamw = (statistics.median(found) for found in seconds.values())
    return {
        "steps": len(seconds["muon"]),
        "tok_per_cpu_s": round(base.batch_tokens / muon),
        "muon_over_adamw": round(adamw / muon, 3),
        "loader_share": round(loader_seconds(view, base) / muon, 5),
    }


def loader_seconds(view: TokenView, config: TrainConfig, batches: int = 200) -> float:
    """Return the CPU time that the loader takes for a batch."""
    loader = Loader(
        view, sequence_length=config.sequence_length, batch_size=config.batch_size, seed=1
    )

    def work() -> None:
        for _ in range(batches):
            batch = loader.next()
            _ = batch.inputs, batch.targets

    return cpu_seconds(work, 5) / batches


def peer_shape(dataset: TokenDataset, folder: Path, nanogpt: Path | None) -> dict[str, object]:
    """Write the tokens for other processes; return what they need to know."""
    tokens = folder / "tokens.npy"
    np.save(tokens, dataset.tokens(0, 0, DOCUMENTS * LENGTH).astype(np.uint16))
    model = PEER.model
    return {
        "tokens": str(tokens),
        "path": str(nanogpt.resolve()) if nanogpt else "",
        "vocabulary": VOCABULARY,
        "length": PEER.sequence_length,
        "batch": PEER.batch_size,
        "dim": model.dim,
        "layers": model.layers,
        "heads": model.heads,
        "threads": PEER.threads,
    }


class Turns(Reporter):
    """Has every peer take a step after each of ours; notes CPU and wall seconds of all.

    The peers change places from turn to turn, since each finds the caches as the one before it has
    left them, and two of one kind would warm them for each other.
    """

    def __init__(self, peers: dict[str, Peer]) -> None:
        super().__init__(quiet=True)
        self.peers = peers
        self.turns: list[dict[str, tuple[float, float]]] = []
        self.begun: tuple[float, float] | None = None

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        cpu, wall = self.begun or (math.nan, math.nan)  # of the first step only the end is known
        took = time.process_time() - cpu, time.perf_counter() - wall
        names = sorted(self.peers)
        first = len(self.turns) % len(names)
        order = [*names[first:], *names[:first]]
        self.turns.append({name: self.peers[name].step() for name in order} | {OURS: took})
        self.begun = time.process_time(), time.perf_counter()


def compare(
    dataset: TokenDataset, folder: Path, peers: dict[str, Peer], steps: int
) -> dict[str, float]:
    """Train the same model here and there, step by step in turns; return our speed over theirs.

    Ours is a whole `train`, with loader, hash checks and metrics; of a peer only batch, forward,
    backward, clipping and update are timed. One thread each, CPU and wall time; the median of the
    turns' ratios, since a machine that others use is faster and slower within a run.
    """
    view, valid = dataset.select("split == 'train'"), read_documents(dataset, "split == 'valid'")
    for peer in peers.values():
        peer.wait()
    turns = Turns(peers)
    config = msgspec.structs.replace(PEER, steps=steps + WARM_UP)
    train(view, valid, config, folder / "peer", turns)
    counted = turns.turns[WARM_UP:]
    return {
        f"ratio_{name}{suffix}": round(
            statistics.median(turn[name][column] / turn[OURS][column] for turn in counted), 3
        )
        for name in peers
        for column, suffix in enumerate(("", "_wall"))
    }


def sums_of_ranks(count: int, folder: Path) -> dict[str, float]:
    """Return milliseconds of both ways of summing the gradients of `PEER`, medians of rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = folder / "ranks.json"
    spawn = multiprocessing.get_context("spawn")
    arguments = [(rank, count, port, result) for rank in range(count)]
    processes = [spawn.Process(target=_sum_as_rank, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found: dict[str, float] = json.loads(result.read_text())
    return found


def _sum_as_rank(rank: int, count: int, port: int, result: Path) -> None:
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(settings | {"RANK": str(rank), "WORLD_SIZE": str(count)})
    torch.set_num_threads(1)
    config = msgspec.structs.replace(PEER, parallel="ddp", microbatches=count)
    parameters = list(Transformer(config.model, VOCABULARY, config.sequence_length).parameters())
    flat = torch.ones(sum(parameter.numel() for parameter in parameters))
    seconds: dict[str, list[float]] = {"ordered": [], "all_reduce": []}
    with join_ranks(config, "cpu") as ranks:
        for _ in range(15):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            ranks.gather([0.0])
            started = time.perf_counter()
            sums = OrderedSum(ranks, list(parameters))
            sums.add()
            sums.finish()
            seconds["ordered"].append(time.perf_counter() - started)
            ranks.gather([0.0])
            started = time.perf_counter()
            torch.distributed.all_reduce(flat)
            seconds["all_reduce"].append(time.perf_counter() - started)
    if rank == 0:
        medians = {f"{k}_ms": round(1000 * statistics.median(v), 2) for k, v in seconds.items()}
        result.write_text(json.dumps(medians))


if __name__ == "__main__":
    main()
