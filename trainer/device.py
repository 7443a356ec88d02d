"""The device of a run, and what depends on it: precision, compiled blocks, random state, memory."""

import os
import resource
from contextlib import AbstractContextManager, nullcontext

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
            " a GPU (torchrun --nproc-per-node), or use train.device = 'cpu'"
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


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Have torch compile the forward pass of each block: one compilation for all of one shape.

    Not the module: names of weights stay, and `fully_shard`, which must come after this, puts its
    hooks around the compiled pass and not into it.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward)


def make_deterministic(config: TrainConfig) -> None:
    """Fix what would make two equal runs differ: thread count, kernels that race, random state."""
    # cuBLAS sums in a fixed order only with a workspace of fixed size (its documentation, section
    # "Results reproducibility"); it looks when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor would only hide reads of unset memory, at a cost in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(config.seed)


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
