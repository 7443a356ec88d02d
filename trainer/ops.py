"""Element-wise parts of the model with their gradients written out, in as few passes as they need.

On a CPU each pass over a hidden layer costs as much as a tenth of its matrix product; autograd's
own formulas take two to three times the passes. Each function equals its textbook form to rounding.

Shape suffixes as in `trainer/model.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)² (So et al. 2021), any shape."""
    y: Tensor = _ReluSquared.apply(x)  # type: ignore[no-untyped-call]
    return y


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Return x / √(mean(x²) + ε) · gain over the last dimension (Zhang & Sennrich 2019, eq. 4)."""
    y: Tensor = _RmsNorm.apply(x, gain, epsilon)  # type: ignore[no-untyped-call]
    return y


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate the pair (i, i + K/2) of every head by its position's angle (RoPE, eq. 34).

    `cos_TK` and `sin_TK` are `[T, K/2]`.
    """
    y: Tensor = _Rotate.apply(x_BHTK, cos_TK, sin_TK)  # type: ignore[no-untyped-call]
    return y


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        y: Tensor = positive * positive
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        x_grad: Tensor = (gradient * positive).mul_(2)
        return x_grad


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, gain)
        y: Tensor = unit * gain
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """With u = x·s and s = 1/√(mean(x²) + ε): dx = s · (g·dy − u · mean(g·dy·u))."""
        unit, scale, gain = ctx.saved_tensors
        product = gradient * unit
        gain_grad = product.flatten(0, -2).sum(0)
        mean = (product @ gain).div_(unit.shape[-1]).unsqueeze(-1)
        x_grad = (gradient * gain).addcmul_(unit, mean, value=-1).mul_(scale)
        return x_grad, gain_grad, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TK, sin_TK)
        return _rotated(x_BHTK, cos_TK, sin_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The inverse of a rotation is the rotation by minus its angle."""
        cos_TK, sin_TK = ctx.saved_tensors
        return _rotated(gradient, cos_TK, -sin_TK), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    result = torch.empty_like(x)
    left, right = result.chunk(2, dim=-1)
    torch.mul(first, cos, out=left)
    left.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right)
    right.addcmul_(first, sin)
    return result
