"""How fast this machine multiplies matrices: what a run's speed is measured against.

MFU (Chowdhery et al. 2022, PaLM, section 4.1) is the share of the peak that a whole step reaches.
On a GPU in bf16 the peak is that of its data sheet. The peak of a CPU's data sheet says little when
the CPU has other work to do, so there, and for a GPU that is not in the table, it is measured:
products of the model's own shapes, in the precision that it trains in. `Peak.source` says which.
"""

import time
from typing import NamedTuple

import torch

from trainer.config import TrainConfig
from trainer.device import precision, wait_for
from trainer.sizes import flops_per_token

EXPECTED_SHARE = 0.75
"""Share of the measured rate that a step reaches, for the time expected of a run that was not
started: 0.75 to 0.9 in runs of the demo's model and of one of 4 M parameters on a CPU."""

EXPECTED_MFU = 0.39
"""The same for a GPU whose peak is in the table: Llama 3 8B compiled on 8 H100 (torchtitan)."""

RECOMPUTE_COST = 4 / 3
"""FLOPs of a step with recomputation over those without: forward (1), again (1) and backward (2),
over forward and backward (3)."""

ROUNDS = 7
MAX_ROWS = 2048
MAX_FLOPS_CPU = 2e10
"""In a round on a CPU, which takes about a second then; fewer rows of a large model do as well."""

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L4": 121e12,
    "A40": 150e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Part of a card's name → dense bf16 FLOPs a second with fp32 sums, by NVIDIA's data sheets (half
of those "with sparsity"; for GeForce the architecture whitepapers). The first match counts."""


class Peak(NamedTuple):
    """FLOPs a second that an MFU of 1 would reach, and where the number is from."""

    flops_per_s: float
    source: str


def peak(config: TrainConfig, device: torch.device) -> Peak:
    """Return the peak of one rank's device."""
    if device.type == "cuda" and precision(config, device) == torch.bfloat16:
        card = torch.cuda.get_device_name(device)
        words = card.replace("-", " ").split()
        for name, flops in PEAKS.items():
            if all(word in words for word in name.split()):
                return Peak(flops, f"data sheet of {card}, dense bf16")
    return Peak(product_rate(config, device), "measured products of the model's shapes")


def product_rate(config: TrainConfig, device: torch.device) -> float:
    """Measure floating-point operations a second in an MLP's products: the best of some rounds."""
    rows = min(MAX_ROWS, config.batch_tokens // config.microbatches)
    flops_per_row = 4 * config.model.dim * config.model.hidden
    if device.type == "cpu":
        rows = max(1, min(rows, int(MAX_FLOPS_CPU / flops_per_row)))
    torch.set_num_threads(config.threads)
    dtype = precision(config, device)
    x = torch.ones(rows, config.model.dim, device=device, dtype=dtype)
    up = torch.ones(config.model.hidden, config.model.dim, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        wait_for(device)
        start = time.perf_counter()
        torch.mm(torch.mm(x, up.T), up)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return rows * flops_per_row / best


def expected_tokens_per_s(
    config: TrainConfig, vocabulary: int, found: Peak, world_size: int = 1
) -> float:
    """Estimate the speed of a run that was not started, on `world_size` devices of a peak."""
    flops = flops_per_token(config.model, vocabulary, config.sequence_length)
    share = EXPECTED_SHARE if found.source.startswith("measured") else EXPECTED_MFU
    again = RECOMPUTE_COST if config.recompute else 1
    return share * found.flops_per_s * world_size / (again * flops)
