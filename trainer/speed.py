"""How fast this machine multiplies matrices: what a run's speed is measured against.

The peak of a data sheet says little about a CPU with other work to do, so the reference is
measured: products of the model's own shapes, in the precision that it trains in. MFU (Chowdhery et
al. 2022, PaLM, section 4.1) is then the share of that rate that a whole step reaches.
"""

import time

import torch

from trainer.config import TrainConfig
from trainer.sizes import flops_per_token

EXPECTED_SHARE = 0.75
"""Share of the measured rate that a step reaches, for the time expected of a run that was not
started: 0.75 to 0.9 in runs of the demo's model and of one of 4 M parameters on a CPU."""

ROUNDS = 7
MAX_ROWS = 2048


def product_rate(config: TrainConfig, device: torch.device) -> float:
    """Measure floating-point operations a second in an MLP's products: the best of some rounds."""
    rows = min(MAX_ROWS, config.batch_tokens // config.microbatches)
    torch.set_num_threads(config.threads)
    x = torch.ones(rows, config.model.dim, device=device)
    up = torch.ones(config.model.hidden, config.model.dim, device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        _wait(device)
        start = time.perf_counter()
        torch.mm(torch.mm(x, up.T), up)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 4 * rows * config.model.dim * config.model.hidden / best


def utilisation(
    config: TrainConfig, vocabulary: int, tokens_per_s: float, device: torch.device
) -> float:
    """Return the MFU of a run: its model FLOPs a second over the measured rate of products."""
    flops = flops_per_token(config.model, vocabulary, config.sequence_length) * tokens_per_s
    return flops / product_rate(config, device)


def expected_tokens_per_s(config: TrainConfig, vocabulary: int, device: torch.device) -> float:
    """Estimate the speed of a run that was not started, from this machine's speed right now."""
    flops = flops_per_token(config.model, vocabulary, config.sequence_length)
    return EXPECTED_SHARE * product_rate(config, device) / flops


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
