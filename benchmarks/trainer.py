"""Speed of training on the CPU: tokens a CPU second, Muon against AdamW, the loader's share.

    python -m benchmarks.trainer [--quick] [--nanogpt PATH] [--litgpt] [--ranks N]

Runs of the default model (`trainer.config`, one thread) on a dataset of Zipf-distributed tokens
made here. CPU time of the whole process, so that other work on the machine counts little; runs of
both optimisers take turns, and the median step is what counts. `loader_share` is the loader's CPU
time for a batch over the CPU time of a step. `ratio_nanogpt` and `ratio_litgpt` are our tokens a
CPU second over theirs for one model of 4.2 M parameters with AdamW, by turns (`compare`). With
`--ranks`, `ordered_ms` and `all_reduce_ms` are the times of summing that model's gradients over N
processes on this machine, in the fixed order and as gloo does it, by turns.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `assay train` does, before torch

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from benchmarks.corpus import cpu_seconds
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

PEER_WARM_UP = 1
Step = Callable[[], None]
Tokens = npt.NDArray[np.uint16]


class Clock(Reporter):
    """Notes the CPU time at the end of each step."""

    def __init__(self, warm_up: int = WARM_UP) -> None:
        super().__init__(quiet=True)
        self.warm_up = warm_up
        self.times: list[float] = []

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        self.times.append(time.process_time())

    def steps(self) -> list[float]:
        """CPU seconds of the steps that count; the last one holds a validation."""
        return [after - before for before, after in pairwise(self.times[self.warm_up - 1 : -1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 55 s on 2 cores")
    parser.add_argument("--nanogpt", metavar="PATH", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--litgpt", action="store_true", help="compare with the installed litgpt")
    parser.add_argument("--ranks", metavar="N", type=int, help="also sum gradients over N ranks")
    options = parser.parse_args()
    peers: dict[str, Callable[[Tokens], Step]] = {}
    if options.nanogpt:
        peers["nanogpt"] = lambda tokens: nanogpt_step(options.nanogpt, tokens)
    if options.litgpt:
        peers["litgpt"] = litgpt_step
    rounds, steps = (2, 14 if peers else 22) if options.quick else (5, 60)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder, "tokens"))
        stream = dataset.tokens(0, 0, DOCUMENTS * LENGTH).astype(np.uint16)
        torch.set_num_threads(PEER.threads)
        with contextlib.redirect_stdout(sys.stderr):  # what they print is not our result
            others = {name: make(stream) for name, make in peers.items()}
        found = measure(dataset, Path(folder), rounds, steps)
        found |= compare(dataset, Path(folder), others, rounds, 3 if options.quick else 12)
        if options.ranks:
            found |= sums_of_ranks(options.ranks, Path(folder))
        print(json.dumps(found))


def make_dataset(folder: Path) -> TokenDataset:
    """Write 2 M tokens in documents of 500, the last of which are for validation."""
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(2, VOCABULARY + 1)
    ids = rng.choice(np.arange(1, VOCABULARY), (DOCUMENTS, LENGTH), p=weights / weights.sum())
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
    tokenizer = TokenMetadata("0" * 64, VOCABULARY, EOS)
    data = encode_token_shard(table, tokenizer)
    name = "tokens/00000-of-00001.arrow"
    write_atomic(folder / name, data)
    content = Content(
        kind="tokens",
        shards={"tokens": [shard_entry(name, data, documents=DOCUMENTS, tokens=ids.size)]},
        total=Counts(tokens=ids.size),
        sources={"made": Counts()},
        tokenizer={"sha256": "0" * 64, "vocab_size": VOCABULARY, "eos_id": EOS},
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


def compare(
    dataset: TokenDataset, folder: Path, others: dict[str, Step], rounds: int, steps: int
) -> dict[str, float]:
    """Train the same model here and there, by turns; return tokens/s over the peer's, by name.

    Ours is a whole `train`, with loader, hash checks and metrics; of a peer only batch, forward,
    backward, clipping and update are timed. One thread each, CPU time, medians.
    """
    if not others:
        return {}
    view, valid = dataset.select("split == 'train'"), read_documents(dataset, "split == 'valid'")
    config = msgspec.structs.replace(PEER, steps=steps + PEER_WARM_UP + 1)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for number in range(rounds):
        clock = Clock(PEER_WARM_UP)
        train(view, valid, config, folder / f"peer-{number}", clock)
        ours += clock.steps()
        for name, step in others.items():
            for _ in range(PEER_WARM_UP):
                step()
            for _ in range(steps):
                start = time.process_time()
                step()
                theirs[name].append(time.process_time() - start)
    mine = statistics.median(ours)
    ratios = {f"ratio_{name}": statistics.median(found) / mine for name, found in theirs.items()}
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def random_batch(tokens: Tokens, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets `int64[B, T]` from random places, as nanoGPT's `get_batch`."""
    T = PEER.sequence_length
    starts = rng.integers(0, len(tokens) - T - 1, PEER.batch_size)
    rows = torch.stack([torch.from_numpy(tokens[s : s + T + 1].astype(np.int64)) for s in starts])
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def peer_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    tokens: Tokens,
) -> Step:
    """Return what takes one step as the training scripts of both peers do, in fp32."""
    rng = np.random.default_rng(1)

    def step() -> None:
        inputs, targets = random_batch(tokens, rng)
        loss = loss_of(inputs, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), PEER.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def nanogpt_step(path: Path, tokens: Tokens) -> Step:
    """Return a step of nanoGPT's model with its own optimiser."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path / "model.py")
    if spec is None or spec.loader is None or not (path / "model.py").exists():
        raise SystemExit(f"--nanogpt {path}: has no model.py; give the folder of a clone")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    shape = PEER.model
    model = module.GPT(
        module.GPTConfig(
            block_size=PEER.sequence_length,
            vocab_size=VOCABULARY,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.dim,
            dropout=0.0,
            bias=False,
        )
    )
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    return peer_step(model, optimizer, lambda x, y: model(x, y)[1], tokens)


def litgpt_step(tokens: Tokens) -> Step:
    """Return a step of litgpt's model, tied as ours, with AdamW and its chunked cross-entropy."""
    try:
        from litgpt.config import Config
        from litgpt.model import GPT
        from litgpt.utils import chunked_cross_entropy
    except ImportError as error:
        raise SystemExit(
            f"--litgpt: {error}; install litgpt into an environment with Assay"
        ) from None
    shape = PEER.model
    model: Any = GPT(
        Config(
            block_size=PEER.sequence_length,
            vocab_size=VOCABULARY,
            padded_vocab_size=VOCABULARY,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.dim,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
        )
    )
    model.lm_head.weight = model.transformer.wte.weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    return peer_step(model, optimizer, lambda x, y: chunked_cross_entropy(model(x), y), tokens)


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
