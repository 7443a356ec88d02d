"""From one product to normalised, rotated heads, and back, in one pass each on a CPU.

Splitting Q, K and V, RMSNorm of Q and K, their rotation and the join of their gradients are some
twenty passes of torch over the same values; on a CPU they took 3.7 ms a layer of a step of 375 ms
(4 layers, 4 M parameters), here 1.4: a kernel does them row by row. What it computes is
`rotate(rms_norm(…))` of `trainer/ops.py`, which is what other devices and types use.

Shapes: R rows (batch × positions), H heads, K head dimensions; `x_RGK` has G = 3 H groups, first
the heads of Q, then those of K, then those of V.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shards.jit import kernel
from trainer.ops import Floats, array

_3D, _2D = "float32[:,:,::1]", "float32[:,::1]"


def split_heads(
    qkv_BTD: Tensor, gains_2K: Tensor, cos_TK: Tensor, sin_TK: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k (normalised, rotated) and v, each `[B, T, H, K]`, of a product `[B, T, 3 H K]`.

    On the CPU, in fp32. `gains_2K`: those of Q and of K; `cos_TK`, `sin_TK`: `[T, K/2]`.
    """
    q, k, v = _SplitHeads.apply(  # type: ignore[no-untyped-call]
        qkv_BTD, gains_2K, cos_TK, sin_TK, epsilon
    )
    return q, k, v


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, gains: Tensor, cos: Tensor, sin: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = qkv.shape
        head_dim = gains.shape[-1]
        x = qkv.contiguous().view(B * T, -1, head_dim)
        heads = x.shape[1] // 3
        out = torch.empty(3, B * T, heads, head_dim)
        scale = torch.empty(B * T, 2 * heads)
        gains, cos, sin = gains.contiguous(), cos.contiguous(), sin.contiguous()
        forward_kernel(
            array(x),
            array(gains),
            array(cos),
            array(sin),
            epsilon,
            array(out),
            array(scale),
        )
        ctx.save_for_backward(x, scale, gains, cos, sin)
        q, k, v = out.view(3, B, T, heads, head_dim)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, scale, gains, cos, sin = ctx.saved_tensors
        B, T, heads, head_dim = gradients[0].shape
        dq, dk, dv = (array(g.contiguous().view(B * T, heads, head_dim)) for g in gradients)
        dx, dgains = torch.empty_like(x), torch.empty_like(gains)
        backward_kernel(
            array(x),
            array(scale),
            array(gains),
            array(cos),
            array(sin),
            dq,
            dk,
            dv,
            array(dx),
            array(dgains),
        )
        return dx.view(B, T, -1), dgains, None, None, None


@kernel(f"void({_3D}, {_2D}, {_2D}, {_2D}, float64, float32[:,:,:,::1], {_2D})", reassociate=True)
def forward_kernel(
    x_RGK: Floats,
    gains_2K: Floats,
    cos_TK: Floats,
    sin_TK: Floats,
    epsilon: float,
    out_3RHK: Floats,
    scale_RG: Floats,
) -> None:
    """Fill q, k, v and the factor 1/√(mean(x²) + ε) of every head of Q and K."""
    R, G, K = x_RGK.shape
    H, half = G // 3, K // 2
    for r in range(R):
        t = r % len(cos_TK)
        for g in range(2 * H):
            part, h = g // H, g % H
            square = np.float32(0)
            for i in range(K):
                square += x_RGK[r, g, i] * x_RGK[r, g, i]
            scale = np.float32(1 / math.sqrt(square / K + epsilon))
            scale_RG[r, g] = scale
            for i in range(half):
                a = x_RGK[r, g, i] * scale * gains_2K[part, i]
                b = x_RGK[r, g, i + half] * scale * gains_2K[part, i + half]
                out_3RHK[part, r, h, i] = a * cos_TK[t, i] - b * sin_TK[t, i]
                out_3RHK[part, r, h, i + half] = b * cos_TK[t, i] + a * sin_TK[t, i]
        for h in range(H):
            for i in range(K):
                out_3RHK[2, r, h, i] = x_RGK[r, 2 * H + h, i]


@kernel(
    f"void({_3D}, {_2D}, {_2D}, {_2D}, {_2D}, {_3D}, {_3D}, {_3D}, {_3D}, {_2D})", reassociate=True
)
def backward_kernel(
    x_RGK: Floats,
    scale_RG: Floats,
    gains_2K: Floats,
    cos_TK: Floats,
    sin_TK: Floats,
    dq_RHK: Floats,
    dk_RHK: Floats,
    dv_RHK: Floats,
    dx_RGK: Floats,
    dgains_2K: Floats,
) -> None:
    """Fill the gradients: dx = s · (g·y − u · mean(g·y·u)), dg = Σ y·u.

    u = x·s, and y is the given gradient rotated back.
    """
    R, G, K = x_RGK.shape
    H, half = G // 3, K // 2
    total = np.zeros((2, K), np.float64)
    back = np.empty(K, np.float32)
    for r in range(R):
        t = r % len(cos_TK)
        for g in range(2 * H):
            part, h = g // H, g % H
            given = dq_RHK if part == 0 else dk_RHK
            scale = scale_RG[r, g]
            for i in range(half):
                a, b = given[r, h, i], given[r, h, i + half]
                back[i] = a * cos_TK[t, i] + b * sin_TK[t, i]
                back[i + half] = b * cos_TK[t, i] - a * sin_TK[t, i]
            mean = np.float32(0)
            for i in range(K):
                unit = x_RGK[r, g, i] * scale
                total[part, i] += back[i] * unit
                back[i] *= gains_2K[part, i]
                mean += back[i] * unit
            mean /= np.float32(K)
            for i in range(K):
                dx_RGK[r, g, i] = scale * (back[i] - x_RGK[r, g, i] * scale * mean)
        for h in range(H):
            for i in range(K):
                dx_RGK[r, 2 * H + h, i] = dv_RHK[r, h, i]
    for part in range(2):
        for i in range(K):
            dgains_2K[part, i] = total[part, i]
