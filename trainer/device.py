"""The device of a run, and what depends on it: precision, compiled blocks, random state, memory."""

import os
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from shards.errors import PlatformError
from trainer.config import TrainConfig


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device to train on; "auto" is a GPU where there is one.

    Of several GPUs a rank takes the one that torchrun gives it (`LOCAL_RANK`). The index is part of
    the device: a thread that knows only "cuda" would work on the first GPU.

    Raises:
        PlatformError: `cuda` was asked for and is not there, or fewer GPUs than ranks on this
            machine.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise PlatformError("train.device = 'cuda', but torch sees no GPU; use 'auto' or 'cpu'")
    if not available or config.device == "cpu":
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise PlatformError(
            f"LOCAL_RANK = {index}, but torch sees {torch.cuda.device_count()} GPUs: start one rank"
            " a GPU (torchrun --nproc-per-node), or use train.device = 'cpu'; where each rank sees"
            " only its own GPU, give all of them LOCAL_RANK=0"
        )
    return torch.device("cuda", index)


def precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Return the type that matrix products run in: bf16 on a GPU unless the recipe says fp32.

    Weights, gradients, optimisers and sums stay fp32.

    Raises:
        PlatformError: bf16 was asked for on a CPU.
    """
    if device.type == "cuda":
        return torch.float32 if config.precision == "fp32" else torch.bfloat16
    if config.precision == "bf16":
        raise PlatformError(
            "train.precision = 'bf16' on a CPU, where bf16 products are about 50 times slower than"
            " fp32; use 'auto': bf16 on a GPU, fp32 here"
        )
    return torch.float32


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which forward passes run in `precision`."""
    dtype = precision(config, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def take_device(device: torch.device) -> None:
    """Make a GPU the current one of this thread, and count its peak memory from here."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Have torch compile the forward pass of each block: one compilation for all of one shape.

    Not the module: names of weights stay, and `fully_shard`, which must come after this, puts its
    hooks around the compiled pass and not into it.
    """
    for block in blocks:
        block.forward = compiled_for_training(block.forward)


def compiled_for_training(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return `forward`, compiled where gradients are computed and as it is elsewhere.

    Validation has batches of many widths. Compiled, each would cost a compilation, and after
    torch's limit of eight the code runs uncompiled; worse, which kernels a shape gets would follow
    from the shapes seen before it, so that a resumed run could validate to other bits.
    """
    compiled = compiled_by_rule(forward, dynamic=False)

    def choose(*arguments: object) -> torch.Tensor:
        return (compiled if torch.is_grad_enabled() else forward)(*arguments)

    return choose


def compiled_by_rule(function: Callable[..., Any], *, dynamic: bool) -> Any:
    """Compile a function, for one shape or (`dynamic`) with one kernel for all.

    Kernels are chosen by rule and not by the clock, since another choice sums in another order:
    Inductor's `deterministic` (torch 2.10 and later; before, the deterministic algorithms of torch
    alone say which reductions it may choose).
    """
    from torch._inductor import config as inductor  # takes half a second

    options: dict[str, Any] = {"deterministic": True} if hasattr(inductor, "deterministic") else {}
    return torch.compile(function, dynamic=dynamic, options=options)


def make_deterministic(config: TrainConfig, device: torch.device) -> None:
    """Fix what would make two equal runs differ: thread count, kernels that race, random state.

    On a GPU an operation without a deterministic form is an error. With a mere warning the backward
    passes of scaled dot-product attention add in any order: their kernels are deterministic only
    with `warn_only=False` (ATen, `attention_backward.cu`), and cuDNN's is left out only then.
    """
    # cuBLAS sums in a fixed order only with a workspace of fixed size (its documentation, section
    # "Results reproducibility"); it looks when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cpu")
    # fp32 means fp32 wherever a container's settings would have it be TF32 (ten bits of fraction).
    torch.set_float32_matmul_precision("highest")
    # Filling every new tensor would only hide reads of unset memory, at a cost in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(config.seed)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what this process has queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return torch's random state, `uint8[n]` for the CPU and, if it is one, the GPU."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that torch had on the GPU, or this process on the CPU, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
