"""nanoGPT and litgpt, a step at a time, each in a process of its own (see `benchmarks.trainer`).

A peer may need another interpreter than Assay, so this file imports nothing but the standard
library, numpy, torch and the peer:

    PYTHON -m benchmarks.trainer_peers nanogpt|litgpt '{"tokens": FILE, "path": …, "dim": …}'

It prints `ready` and then, for each line that it reads, the CPU and wall seconds of one step. What
is timed is what the peer's own training script does: batch, forward, backward, clipping, update.
With `prepared` in the shape its memory is set up as `assay train` does it (`trainer.memory`).
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `assay train` does, before torch

import numpy as np
import torch

from trainer.memory import prepare_memory

ROOT = Path(__file__).parent.parent
ADAM = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
Shape = dict[str, Any]
Step = Callable[[], None]


class Peer:
    """A peer in its process; `step()` has it take one step and returns its seconds."""

    def __init__(self, name: str, python: str, shape: Shape) -> None:
        """Start it; `wait` until it can take steps."""
        command = [python, "-m", "benchmarks.trainer_peers", name, json.dumps(shape)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        """Wait until its model stands.

        Raises:
            SystemExit: it could not start, and has said why.
        """
        if self._line() != "ready":
            raise SystemExit(self.process.wait() or 1)

    def step(self) -> tuple[float, float]:
        """Return CPU and wall seconds of its next step."""
        if self.process.stdin is None:
            raise SystemExit("no pipe to the peer")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        cpu, wall = self._line().split()
        return float(cpu), float(wall)

    def close(self) -> None:
        """End the process: its input ends."""
        self.process.communicate()

    def _line(self) -> str:
        return "" if self.process.stdout is None else self.process.stdout.readline().strip()


def batches(shape: Shape) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Return what makes inputs and targets `int64[B, T]` from random places, as nanoGPT does."""
    tokens, T = np.load(shape["tokens"], mmap_mode="r"), shape["length"]
    rng = np.random.default_rng(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        starts = rng.integers(0, len(tokens) - T - 1, shape["batch"])
        rows = [torch.from_numpy(tokens[s : s + T + 1].astype(np.int64)) for s in starts]
        stacked = torch.stack(rows)
        return stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous()

    return batch


def stepper(
    shape: Shape,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Step:
    """Return what takes one step as the training scripts of both peers do, in fp32."""
    batch = batches(shape)

    def step() -> None:
        loss = loss_of(*batch())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def nanogpt_model(shape: Shape) -> Any:
    """Return nanoGPT's model, from the clone that the shape names."""
    path = Path(shape["path"], "model.py")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"--nanogpt {shape['path']}: has no model.py; give the folder of a clone")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=shape["length"],
        vocab_size=shape["vocabulary"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        n_embd=shape["dim"],
        dropout=0.0,
        bias=False,
    )
    return module.GPT(config)


def nanogpt(shape: Shape) -> Step:
    """Return a step of nanoGPT's model with its own optimiser."""
    model = nanogpt_model(shape)
    optimizer = model.configure_optimizers(ADAM["weight_decay"], ADAM["lr"], ADAM["betas"], "cpu")
    return stepper(shape, model, optimizer, lambda x, y: model(x, y)[1])


def litgpt(shape: Shape) -> Step:
    """Return a step of litgpt's model, tied as ours, with AdamW and its chunked cross-entropy."""
    try:
        from litgpt.config import Config
        from litgpt.model import GPT
        from litgpt.utils import chunked_cross_entropy
    except ImportError as error:
        raise SystemExit(
            f"--litgpt: {error} (by {sys.executable}). It needs an environment of its own:\n"
            "    python -m venv DIR\n"
            f"    DIR/bin/pip install torch=={torch.__version__.split('+')[0]} numpy\n"
            "    DIR/bin/pip install litgpt\n"
            "Then give its interpreter: --litgpt DIR/bin/python"
        ) from None
    config = Config(
        block_size=shape["length"],
        vocab_size=shape["vocabulary"],
        padded_vocab_size=shape["vocabulary"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        n_embd=shape["dim"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
    )
    model: Any = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)
    return stepper(shape, model, optimizer, lambda x, y: chunked_cross_entropy(model(x), y))


def main() -> None:
    name, shape = sys.argv[1], json.loads(sys.argv[2])
    if shape["prepared"]:
        prepare_memory()  # what `assay train` does for itself
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(1)
    with contextlib.redirect_stdout(sys.stderr):  # what they print is not our result
        step = {"nanogpt": nanogpt, "litgpt": litgpt}[name](shape)
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        print(time.process_time() - cpu, time.perf_counter() - wall, flush=True)


if __name__ == "__main__":
    main()
