"""The checks of `benchmarks.gpu`, each a function from a `Place` to what it found.

    python -m benchmarks.gpu_checks NAME '{"device": "cuda", "compile": true, "nanogpt": null}'

prints what the check found, or `{"ok": false, "error": …}` with the end of the traceback.
"""

import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from benchmarks.gpu import Found
from benchmarks.trainer import DOCUMENTS, LENGTH, WARM_UP, make_dataset
from benchmarks.trainer_peers import batches, nanogpt_model
from shards.dataset import TokenDataset
from shards.loader import Loader
from shards.torch import TorchLoader
from trainer import run as run_module
from trainer.checkpoint import load_checkpoint
from trainer.config import ModelConfig, TrainConfig
from trainer.data import Documents, read_documents
from trainer.device import autocast, compile_blocks, make_deterministic, wait_for
from trainer.documents import attend, block_mask, dense_mask, document_numbers
from trainer.evaluate import evaluate
from trainer.footprint import footprint
from trainer.loop import train_on_ranks
from trainer.model import Transformer, mean_nats
from trainer.presets import PRESETS
from trainer.progress import Reporter
from trainer.ranks import ALONE, Group, Ranks
from trainer.records import RunRecord, read_metrics
from trainer.sharded import shard, whole
from trainer.signals import Stopped
from trainer.watch import Watch

GPT2 = PRESETS["124m"]
TINY = ModelConfig(dim=32, layers=2, heads=2, tied=True)
SMALL = ModelConfig(dim=256, layers=4, heads=4, tied=True)
MEMORY_WITHIN = 0.25
"""How far the measured peak may be from the predicted one: allocators add a tenth or so, and the
prediction adds up peaks that may not fall together."""


class Place(NamedTuple):
    """Where the checks run: on a card, or at a tiny size on a CPU."""

    device: str
    compile: bool
    nanogpt: str | None
    folder: Path

    @property
    def rehearsal(self) -> bool:
        """Whether figures mean nothing."""
        return self.device == "cpu"

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu") if self.rehearsal else torch.device("cuda", 0)


class Data(NamedTuple):
    """A dataset that is made for a check."""

    dataset: TokenDataset
    valid: Documents


class Clock(Reporter):
    """Notes when each step ended, with all that it had queued."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(quiet=True)
        self.device = device
        self.seconds: list[float] = []
        self.begun = time.perf_counter()

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        wait_for(self.device)
        self.seconds.append(time.perf_counter() - self.begun)
        self.between()
        self.begun = time.perf_counter()

    def between(self) -> None:
        """Do what is not counted."""

    @property
    def median(self) -> float:
        """Seconds of a step, without the first and without the last, which has a validation."""
        return statistics.median(self.seconds[WARM_UP:-1])


class Turns(Clock):
    """Has a peer take a step after each of ours."""

    def __init__(self, device: torch.device, peer: Callable[[], None]) -> None:
        super().__init__(device)
        self.peer, self.theirs = peer, list[float]()

    def between(self) -> None:
        with in_any_order():
            wait_for(self.device)
            begun = time.perf_counter()
            self.peer()
            wait_for(self.device)
            self.theirs.append(time.perf_counter() - begun)


class Stopper(Reporter):
    """Stops a run after a step, as a scheduler would."""

    def __init__(self, at: int) -> None:
        super().__init__(quiet=True)
        self.at = at

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def in_any_order() -> Iterator[None]:
    """Let kernels add in any order and round to TF32, as nanoGPT's script does."""
    precision = torch.get_float32_matmul_precision()
    strict = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.set_float32_matmul_precision(precision)


def make_data(place: Place, vocabulary: int) -> Data:
    """Write 2 M tokens; in a rehearsal of few of them."""
    dataset = make_dataset(place.folder / "tokens", 256 if place.rehearsal else vocabulary)
    return Data(dataset, read_documents(dataset, "split == 'valid'"))


def gpt2(place: Place, **changes: Any) -> TrainConfig:
    """Return the settings of the 124M model, as nanoGPT trains it on one card."""
    base = TrainConfig(
        model=TINY if place.rehearsal else GPT2.model,
        optimizer="adamw",
        sequence_length=32 if place.rehearsal else GPT2.sequence_length,
        batch_size=4 if place.rehearsal else 16,
        steps=WARM_UP + (4 if place.rehearsal else 40),
        learning_rate=6e-4,
        embedding_learning_rate=6e-4,
        eval_every=0,
        checkpoint_every=0,
        device="cpu" if place.rehearsal else "cuda",
        compile=place.compile,
    )
    return msgspec.structs.replace(base, **changes)


def small(place: Place, **changes: Any) -> TrainConfig:
    """Return the settings of a run of some seconds, with validation and checkpoints."""
    short = {
        "model": TINY if place.rehearsal else SMALL,
        "sequence_length": 32 if place.rehearsal else 512,
        "batch_size": 4 if place.rehearsal else 16,
        "steps": 8,
        "eval_every": 4,
        "checkpoint_every": 3,
        "learning_rate": 0.01,
        "compile": False,
    }
    return gpt2(place, **(short | changes))


def run_in(
    place: Place,
    data: Data,
    config: TrainConfig,
    name: str,
    reporter: Reporter | None = None,
    ranks: Ranks = ALONE,
) -> RunRecord:
    """Make a whole run in a folder of its own."""
    view, out = data.dataset.select("split == 'train'"), place.folder / name
    reporter = reporter or Reporter(quiet=True)
    record = train_on_ranks(view, data.valid, config, out, reporter, ranks)
    if record is None:
        raise RuntimeError("the first rank has a record")
    return record


def final_state(place: Place, record: RunRecord, name: str) -> Any:
    found = load_checkpoint(place.folder / name, record.run_key)
    return found and found.state


def same(left: Any, right: Any) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def check_card(place: Place) -> Found:
    """What the figures are of."""
    found: Found = {"ok": True, "torch": str(torch.__version__), "name": "CPU, a rehearsal"}
    if not place.rehearsal:
        card = torch.cuda.get_device_properties(0)
        found |= {
            "name": card.name,
            "cards": torch.cuda.device_count(),
            "memory_bytes": card.total_memory,
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
            "bf16": torch.cuda.is_bf16_supported(),
        }
        found["ok"] = found["bf16"]
    return found


def check_speed(place: Place) -> Found:
    """Tokens a second and MFU of the 124M model, and its memory against the prediction."""
    data, clock = make_data(place, GPT2.vocabulary), Clock(place.torch_device)
    config = gpt2(place)
    record = run_in(place, data, config, "speed", clock)
    speed = config.batch_tokens / clock.median
    rows = read_metrics(place.folder / "speed", config.total_steps)
    peak = max(row.memory_bytes or 0 for row in rows)
    expected = footprint(config, data.dataset.vocab_size, gpu=not place.rehearsal).device
    return {
        "ok": place.rehearsal or abs(peak / expected - 1) <= MEMORY_WITHIN,
        "tokens_per_s": round(speed),
        "mfu": speed * record.flops_per_token / record.facts["mfu_peak"]["flops_per_s"],
        "mfu_peak": record.facts["mfu_peak"],
        "first_step_s": round(clock.seconds[0], 2),
        "wait_share": statistics.median(row.wait_share for row in rows[WARM_UP:]),
        "checkpoint_wait_s": record.facts["checkpoint_wait_s"],
        "losses": [rows[0].loss, rows[-1].loss],
        "memory_bytes": peak,
        "predicted_bytes": expected,
        "memory_over_predicted": peak / expected,
    }


def check_nanogpt(place: Place) -> Found:
    """Our tokens a second over nanoGPT's, step by step in turns; its model compiled as it does."""
    data, config = make_data(place, GPT2.vocabulary), gpt2(place)
    peer = nanogpt_step(place, data, config)
    turns = Turns(place.torch_device, peer)
    run_in(place, data, config, "ours", turns)
    theirs = statistics.median(turns.theirs[WARM_UP:-1])
    ratio = theirs / turns.median
    return {
        "ok": place.rehearsal or ratio >= 1,
        "ratio": ratio,
        "tokens_per_s": round(config.batch_tokens / turns.median),
        "nanogpt_tokens_per_s": round(config.batch_tokens / theirs),
    }


def nanogpt_step(place: Place, data: Data, config: TrainConfig) -> Callable[[], None]:
    """Return a step as in nanoGPT's training script: its model, optimiser, autocast, clipping."""
    tokens = place.folder / "tokens.npy"
    np.save(tokens, data.dataset.tokens(0, 0, DOCUMENTS * LENGTH).astype(np.uint16))
    shape = {
        "tokens": str(tokens),
        "path": place.nanogpt or "",
        "vocabulary": data.dataset.vocab_size,
        "length": config.sequence_length,
        "batch": config.batch_size,
        "dim": config.model.dim,
        "layers": config.model.layers,
        "heads": config.model.heads,
    }
    with contextlib.redirect_stdout(sys.stderr):
        model = nanogpt_model(shape).to(place.torch_device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), place.device)
    forward = torch.compile(model) if place.compile else model
    batch = batches(shape)

    def step() -> None:
        x, y = batch()
        if not place.rehearsal:
            x, y = (t.pin_memory().to(place.torch_device, non_blocking=True) for t in (x, y))
        with autocast(config, place.torch_device):
            _, loss = forward(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def resumes(place: Place, **changes: Any) -> Found:
    """Whether a run that was stopped and resumed ends with the bits of one that was not."""
    data, config = make_data(place, 4096), small(place, **changes)
    record = run_in(place, data, config, "whole")
    torch._dynamo.reset()  # as a new process would, the resumed run compiles for itself
    try:
        run_in(place, data, config, "stopped", Stopper(5))
    except Stopped:
        torch._dynamo.reset()
    again = run_in(place, data, config, "stopped")
    states = [final_state(place, record, name) for name in ("whole", "stopped")]
    losses = [
        [(row.loss, row.grad_norm, row.valid_bpb) for row in read_metrics(place.folder / name, 99)]
        for name in ("whole", "stopped")
    ]
    return {
        "ok": same(*states) and losses[0] == losses[1] and again.bpb == record.bpb,
        "state": same(*states),
        "losses": losses[0] == losses[1],
        "first_difference": next(
            (step for step, pair in enumerate(zip(*losses, strict=True), 1) if pair[0] != pair[1]),
            None,
        ),
        "bpb": [record.bpb, again.bpb],
    }


def check_resume(place: Place) -> Found:
    """Bitwise resume of an ordinary run with Muon."""
    return resumes(place, optimizer="muon", microbatches=2)


def check_resume_compiled(place: Place) -> Found:
    """Bitwise resume of a compiled run with grouped heads and recomputation."""
    model = msgspec.structs.replace(TINY if place.rehearsal else SMALL, kv_heads=1)
    return resumes(place, compile=place.compile, recompute=True, model=model)


def check_resume_masks(place: Place) -> Found:
    """Bitwise resume with document masks, compiled: FlexAttention inside of each block."""
    return resumes(place, compile=place.compile, document_masks=True)


def check_masks(place: Place) -> Found:
    """FlexAttention with document masks against dense masks, values and gradients.

    The reference is scaled dot-product attention in fp32. In bf16, whose
    steps are 2⁻⁸ of a value, FlexAttention may be off by four times what scaled dot-product
    attention in bf16 is; without a mask both would be off by thousands of steps.
    """
    cases, ok = {}, True
    lengths = (32, 40) if place.rehearsal else (512, 1000)
    for dtype in (torch.float32, torch.bfloat16):
        for length, kv_heads in zip(lengths, (4, 2), strict=True):
            off = mask_errors(place, length, kv_heads, dtype)
            limit = 1e-3 if dtype == torch.float32 else 4 * off["dense"] + 1e-2
            ok = ok and off["flex"] <= limit and off["unmasked"] > limit
            cases[f"{str(dtype).removeprefix('torch.')} T={length} kv_heads={kv_heads}"] = off
    return {"ok": ok, "largest_difference": cases}


def mask_errors(place: Place, length: int, kv_heads: int, dtype: torch.dtype) -> dict[str, float]:
    """Return the largest differences from the reference, over outputs and gradients."""
    device, generator = place.torch_device, torch.Generator().manual_seed(1)
    grouped = kv_heads != 4
    tokens = torch.randint(0, 50, (2, length), generator=generator).to(device)
    numbers = document_numbers(tokens, 0)
    heads = [
        torch.randn(2, count, length, 64, generator=generator).to(device)
        for count in (4, kv_heads, kv_heads, 4)
    ]
    # On a CPU FlexAttention has no backward pass.
    gradients = not place.rehearsal

    def results(mask: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        *inputs, weights = (x.to(dtype).detach().requires_grad_(gradients) for x in heads)
        y = attend(*inputs, mask, grouped=grouped)
        if not gradients:
            return [y]
        return [y, *torch.autograd.grad((y * weights.detach()).sum(), inputs)]

    reference = results(dense_mask(numbers), torch.float32)
    ways = {"dense": dense_mask(numbers), "flex": block_mask(numbers), "unmasked": None}
    found = {}
    for name, mask in ways.items():
        pairs = zip(results(mask, dtype), reference, strict=True)
        found[name] = max(float((a.float() - b).detach().abs().max()) for a, b in pairs)
    return found


def check_loader(place: Place) -> Found:
    """Batches that came through the ring of pinned buffers against those of the CPU.

    Products keep the GPU busy meanwhile, so that a copy that does not wait for its turn would show.
    """
    data, device = make_data(place, 4096), place.torch_device
    view = data.dataset.select("split == 'train'")
    wrong, count = 0, 8 if place.rehearsal else 300
    for packing in ("none", "best-fit"):
        sizes = {"sequence_length": 256, "batch_size": 8, "seed": 1, "packing": packing}
        plain = Loader(view, **sizes)
        busy = (
            torch.ones(2, 2, device=device)
            if place.rehearsal
            else torch.ones(4096, 4096, device=device)
        )
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        with TorchLoader(Loader(view, **sizes), device) as batches_there:
            for number in range(count):
                inputs, targets = next(batches_there)
                torch.mm(busy, busy)
                kept.append((inputs.clone(), targets.clone()))  # behind the product, on its stream
                if number % 10 == 9 or number == count - 1:
                    for mine in kept:
                        expected = plain.next()
                        arrays = (expected.inputs, expected.targets)
                        pairs = zip(mine, arrays, strict=True)
                        wrong += not all(np.array_equal(a.cpu().numpy(), b) for a, b in pairs)
                    kept.clear()
    return {"ok": wrong == 0, "batches": 2 * count, "wrong": wrong}


def check_ranks(place: Place) -> Found:
    """One rank with NCCL: its exchanges, a run with `ddp`, and a model cut by `fully_shard`."""
    device = place.torch_device
    store = dist.HashStore()  # type: ignore[no-untyped-call]
    dist.init_process_group(
        "gloo" if place.rehearsal else "nccl",
        store=PrefixStore("group", store),
        rank=0,
        world_size=1,
        device_id=None if place.rehearsal else device,
    )
    control = None if place.rehearsal else dist.new_group(backend="gloo")
    with Watch(PrefixStore("watch", store), 0, 1, 60.0) as watch:
        ranks = Group(watch, control, device)
        values = torch.arange(8.0, device=device)
        exchanges = {
            "gather": ranks.gather([1.0, 2.0]) == [[1.0, 2.0]],
            "objects": ranks.share({"a": [1]}) == {"a": [1]},
            "transpose": torch.equal(ranks.transpose(values.view(1, 8)), values.view(1, 8)),
            "join": torch.equal(ranks.join(values), values),
        }
        data, config = make_data(place, 4096), small(place, parallel="ddp", microbatches=2)
        alone = run_in(place, data, config, "alone")
        group = run_in(place, data, config, "group", ranks=ranks)
        states = [final_state(place, r, n) for r, n in ((alone, "alone"), (group, "group"))]
        off = sharded_difference(place)
    dist.destroy_process_group()
    return {
        "ok": all(exchanges.values()) and same(*states) and off < 1e-5,
        "exchanges": exchanges,
        "ddp_is_the_same": same(*states),
        "fsdp2_largest_difference": off,
    }


def sharded_difference(place: Place) -> float:
    """Return how far gradients of a compiled model that is cut over one rank are from its own."""
    device, found = place.torch_device, list[list[torch.Tensor]]()
    tokens = torch.randint(0, 256, (4, 33), generator=torch.Generator().manual_seed(1)).to(device)
    for cut in (False, True):
        with torch.device("meta" if cut else "cpu"):  # as `Run.begin` does
            model = Transformer(TINY, 256, 32)
        if place.compile:
            compile_blocks(model.blocks)
        if cut:
            shard(model, 1, device)
            model.to_empty(device=device)
        model.initialise(1)
        model.to(device)
        mean_nats(model, tokens[:, :-1], tokens[:, 1:]).backward()
        found.append([whole(p.grad) for p in model.parameters()])
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))


def check_precision(place: Place) -> Found:
    """Losses of a run in bf16 beside those in fp32."""
    data, rows = make_data(place, 4096), []
    for precision in ("auto", "fp32"):
        config = small(place, precision=precision, steps=20, checkpoint_every=0)
        run_in(place, data, config, precision)
        rows.append([row.loss for row in read_metrics(place.folder / precision, 20)])
    off = max(abs(a - b) / b for a, b in zip(*rows, strict=True))
    narrow = rows[0] != rows[1]
    ok = off < 0.02 and (narrow or place.rehearsal)
    return {"ok": ok, "largest_relative_difference": off, "differs_at_all": narrow}


def check_validation(place: Place) -> Found:
    """Bits per byte of the same model and documents on the card and on the CPU."""
    data = make_data(place, 4096)
    model = Transformer(TINY if place.rehearsal else SMALL, data.dataset.vocab_size, 256)
    model.initialise(1)
    bits = [evaluate(model, data.valid, 256, "cpu").bpb]
    model.to(place.torch_device)
    bits.append(evaluate(model, data.valid, 256, place.torch_device).bpb)
    off = abs(bits[1] - bits[0]) / bits[0]
    return {"ok": off < 1e-5, "bpb": bits, "relative_difference": off}


def check_muon(place: Place) -> Found:
    """Speed of the 124M model with Muon over that with AdamW."""
    data, medians = make_data(place, GPT2.vocabulary), {}
    for optimizer in ("adamw", "muon"):
        clock = Clock(place.torch_device)
        config = gpt2(place, optimizer=optimizer, steps=WARM_UP + (4 if place.rehearsal else 15))
        run_in(place, data, config, optimizer, clock)
        medians[optimizer] = clock.median
    ratio = medians["adamw"] / medians["muon"]
    return {"ok": place.rehearsal or ratio >= 0.8, "muon_over_adamw": ratio}


def check_any_order(place: Place) -> Found:
    """What it costs that kernels add in a fixed order: speed with them over speed without."""
    data, medians = make_data(place, GPT2.vocabulary), {}
    steps = WARM_UP + (4 if place.rehearsal else 15)
    for name in ("fixed", "any"):
        clock = Clock(place.torch_device)
        if name == "any":
            run_module.make_deterministic = only_threads
        run_in(place, data, gpt2(place, steps=steps), name, clock)
        medians[name] = clock.median
    run_module.make_deterministic = make_deterministic
    return {"ok": True, "fixed_over_any": medians["any"] / medians["fixed"]}


def only_threads(config: TrainConfig, device: torch.device) -> None:
    """Take the place of `make_deterministic` and let kernels add as they like."""
    make_deterministic(config, device)
    torch.use_deterministic_algorithms(False)


CHECKS: dict[str, Callable[[Place], Found]] = {
    "card": check_card,
    "speed": check_speed,
    "nanogpt": check_nanogpt,
    "resume": check_resume,
    "resume_compiled": check_resume_compiled,
    "masks": check_masks,
    "resume_masks": check_resume_masks,
    "loader": check_loader,
    "ranks": check_ranks,
    "precision": check_precision,
    "validation": check_validation,
    "muon": check_muon,
    "any_order": check_any_order,
}


def found_by(name: str, place: Place) -> Found:
    """Return what a check finds, or its error."""
    try:
        return CHECKS[name](place)
    except BaseException as error:  # a signal that came too late is an answer, too
        told = traceback.format_exc()[-3000:]
        return {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000], "traceback": told}


def main() -> None:
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        found = found_by(name, Place(**settings, folder=Path(folder)))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
