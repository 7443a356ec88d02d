"""Cross-entropy of the output layer without the logits of a whole batch in memory.

The logits of a batch are its largest tensor: 2048 positions of a vocabulary of 4096 take 32 MiB,
and the textbook way keeps three of them (logits, log-probabilities, gradient). Here the positions
go through the output layer in chunks that stay in the cache, and each chunk's part of the gradient
is computed while its probabilities are there, so that nothing is computed twice (as in the fused
linear cross-entropy of Hsu et al. 2024, Liger Kernel). The chunks follow from the shapes alone, so
the sums always run in the same order.

Shape suffixes: N positions, D width, V vocabulary, R rows of a chunk.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.ops import product
from trainer.sizes import CHUNK_LOGITS_GPU

IGNORED = -1
"""Target of a position that has no loss (padding)."""

CHUNK_LOGITS = 2**21
"""Logits of one chunk on a CPU, 8 MiB in fp32: a step's three products with a vocabulary of 4096
took 71 ms so, 73 with half of it and 77 with a quarter."""

SMALLEST = 1e-30
"""Probability below which fp32 has lost digits, or all: what it is follows from the logits then."""

MIN_ROWS = 128
"""Rows below which a product with the output layer is no longer at full speed."""


def mean_nats_of(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, count: int | Tensor | None = None
) -> Tensor:
    """Return the mean of −ln softmax(x·Wᵀ)[target] over targets that are not `IGNORED`.

    Equal, up to rounding, to `F.cross_entropy(x @ W.T, targets, ignore_index=IGNORED)`; the
    gradient can be taken once. NaN if every target is `IGNORED`. With `count` it is the sum over
    `count`: the part that a microbatch has in the mean of its whole batch. Counts may be tensors,
    so that nobody has to wait for a GPU to know them.
    """
    total = (targets_N != IGNORED).sum() if count is None else count
    loss: Tensor = _MeanNats.apply(  # type: ignore[no-untyped-call]
        x_ND, weight_VD, targets_N, total
    )
    return loss


@torch.no_grad()
def nats_of(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return −ln softmax(x·Wᵀ)[target] of each position, `float32[N]`, without a gradient.

    A position whose target is `IGNORED` gets 0 and costs nothing.
    """
    places = torch.nonzero(targets_N != IGNORED).squeeze(1)
    nats_N = torch.zeros_like(targets_N, dtype=torch.float32)
    weight_VD = _narrow(weight_VD)
    for rows in _chunks(len(places), weight_VD):
        chosen = places[rows]
        logits_RV = _wide(product(_narrow(x_ND[chosen]), weight_VD))
        nats_N[chosen] = F.cross_entropy(logits_RV, targets_N[chosen], reduction="none").float()
    return nats_N


class _MeanNats(torch.autograd.Function):
    """The loss, and with it both gradients, which the backward pass only scales."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, count: int | Tensor
    ) -> Tensor:
        w_VD = _narrow(weight_VD)
        share_N = (targets_N != IGNORED).to(weight_VD.dtype)
        share_N /= count
        loss = share_N.new_zeros(())
        x_grad_ND, weight_grad_VD = torch.empty_like(x_ND), torch.empty_like(weight_VD)
        with torch.autocast(x_ND.device.type, enabled=False):
            for rows in _chunks(len(targets_N), w_VD):
                x_RD, share_R1 = _narrow(x_ND[rows], w_VD.dtype), share_N[rows, None]
                target_R1 = targets_N[rows, None].clamp(min=0)
                y_RV = _wide(product(x_RD, w_VD))
                # one kernel, whose passes stay in the nearest cache
                p_RV = torch.softmax(y_RV, dim=1)
                loss += (_nats(y_RV, p_RV, target_R1) * share_R1).sum()
                p_RV.scatter_add_(1, target_R1, p_RV.new_full(target_R1.shape, -1))
                p_RV = p_RV.to(w_VD.dtype)
                # A row's share goes to its D values and not to its V probabilities.
                x_grad_ND[rows] = product(p_RV, w_VD.T) * share_R1
                _add_product(weight_grad_VD, p_RV.T, x_RD * share_R1, first=rows.start == 0)
        ctx.save_for_backward(x_grad_ND, weight_grad_VD)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_grad_ND, weight_grad_VD = ctx.saved_tensors
        return x_grad_ND.mul_(gradient), weight_grad_VD.mul_(gradient), None, None


def _nats(y_RV: Tensor, p_RV: Tensor, target_R1: Tensor) -> Tensor:
    """Return −ln p of the targets `[R, 1]`, from logits and their softmax."""
    hit_R1 = p_RV.gather(1, target_R1)
    if not y_RV.is_cuda and not (hit_R1 < SMALLEST).any():
        return -hit_R1.log()
    # ln Σ exp follows from the largest probability, which is at least 1/V, so that nothing
    # underflows. On a GPU always, since the question above would wait for it.
    top_R1, most_R1 = y_RV.amax(1, keepdim=True), p_RV.amax(1, keepdim=True)
    return top_R1 - most_R1.log() - y_RV.gather(1, target_R1)


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Add left · right to `total`, or put it there, where the memory may hold anything."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if first else 1)
    else:  # bf16 products, an fp32 sum
        part = left @ right.to(left.dtype)
        total.copy_(part) if first else total.add_(part)


def _narrow(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return values in the type that products run in: `dtype`, or autocast's where it is on."""
    device = x.device.type
    if dtype is None and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return x if dtype is None else x.to(dtype)


def _wide(logits_RV: Tensor) -> Tensor:
    """Return logits in fp32 at least: sums over a vocabulary need it."""
    return logits_RV.float() if logits_RV.itemsize < 4 else logits_RV


def _chunks(positions: int, weight_VD: Tensor) -> Iterator[slice]:
    """Cut `positions` into runs of about `CHUNK_LOGITS` logits; one, if there are none."""
    logits = CHUNK_LOGITS_GPU if weight_VD.is_cuda else CHUNK_LOGITS
    rows = max(MIN_ROWS, logits // len(weight_VD))
    for start in range(0, max(1, positions), rows):
        yield slice(start, start + rows)
