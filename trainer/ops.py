"""The parts of the model between its parameters: products, norm, rotation, activation.

Each is a formula of a few torch operations, which a compiler for GPUs fuses and autograd can
differentiate. On a CPU in fp32 every operation is a pass over memory, and a pass over a hidden
layer costs as much as a tenth of its matrix product; there, `rms_norm` and `relu_squared` are one
kernel forward and one backward, and products are oneDNN's if the CPU is of AMD. All forms are equal
to rounding.

Shape suffixes as in `trainer/model.py`; R rows, D and E values of a row, N values.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor
from torch.autograd.function import once_differentiable

from shards.jit import kernel

Floats = npt.NDArray[np.float32]
_2D, _1D = "float32[:,::1]", "float32[::1]"


def linear(x: Tensor, weight_ED: Tensor) -> Tensor:
    """Map the last dimension from D to E values: x · Wᵀ."""
    if _ONEDNN is None or not by_kernel(x):
        return F.linear(x, weight_ED)
    y: Tensor = _Linear.apply(x, weight_ED)  # type: ignore[no-untyped-call]
    return y


def product(x_RD: Tensor, weight_ED: Tensor) -> Tensor:
    """Return x · Wᵀ `[R, E]`, without a gradient of its own: by oneDNN where it is the faster one.

    torch takes MKL for it on a CPU. oneDNN, which torch carries too, was 8 to 15 % faster on an AMD
    CPU with AVX-512 for every shape of a model of 4 M parameters, save for the gradients of weights
    (`dyᵀ · x`), which stay with MKL. On an Intel CPU (Sapphire Rapids) it was 0 to 15 % slower.
    """
    if _ONEDNN is None or not by_kernel(x_RD) or not len(x_RD):
        return x_RD @ weight_ED.T
    y_RE: Tensor = _ONEDNN(x_RD, weight_ED, None, "none", [], "")
    return y_RE


def _find_onednn() -> Any:
    """Return oneDNN's product, which torch has under a private name; None if MKL is to multiply.

    By rule and not by the clock, which would choose other orders of sums in another process.
    """
    if not torch.backends.mkldnn.is_available() or not _is_amd():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _is_amd(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux says that this CPU is of AMD."""
    return cpuinfo.exists() and b"AuthenticAMD" in cpuinfo.read_bytes()


_ONEDNN = _find_onednn()


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)² (So et al. 2021), any shape."""
    if not by_kernel(x):
        return F.relu(x).square()
    y: Tensor = _ReluSquared.apply(x)  # type: ignore[no-untyped-call]
    return y


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Return x / √(mean(x²) + ε) · gain over the last dimension (Zhang & Sennrich 2019, eq. 4).

    The result has the type of the gain (fp32), in which bf16 values are squared and summed too.
    """
    if not by_kernel(x):
        return F.rms_norm(x.to(gain.dtype), gain.shape, gain, epsilon)
    y: Tensor = _RmsNorm.apply(x, gain, epsilon)  # type: ignore[no-untyped-call]
    return y


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate the pair (i, i + K/2) of every head by its position's angle (RoPE, eq. 34).

    `cos_TK` and `sin_TK` are `[T, K/2]` in fp32: in bf16 positions beyond 256 would share angles.
    """
    first, second = x_BHTK.chunk(2, dim=-1)
    rotated = (first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK)
    return torch.cat(rotated, dim=-1)


def by_kernel(x: Tensor) -> bool:
    """Whether a kernel of ours computes this: on a CPU, in fp32, and not for a compiler."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def array(tensor: Tensor) -> Floats:
    """Return the memory of a contiguous tensor on the CPU as an array."""
    found: Floats = tensor.detach().numpy()
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_ED: Tensor) -> Tensor:
        x_RD = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(x_RD, weight_ED)
        return product(x_RD, weight_ED).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x_RD, weight_ED = ctx.saved_tensors
        dy_RE = gradient.reshape(-1, gradient.shape[-1])
        dx = product(dy_RE, weight_ED.T).view(*gradient.shape[:-1], -1)
        return dx, dy_RE.T @ x_RD


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        square_forward(array(x.view(-1)), array(y.view(-1)))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        dy = gradient.contiguous()
        square_backward(array(x.view(-1)), array(dy.view(-1)), array(dx.view(-1)))
        return dx


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        rows = x.contiguous().view(-1, x.shape[-1])
        # Not a view of what the kernel fills: FSDP2 warns of a module that returns one.
        y, scale = torch.empty(x.shape), torch.empty(len(rows))
        norm_forward(array(rows), array(gain), epsilon, array(y.view(rows.shape)), array(scale))
        ctx.save_for_backward(rows, scale, gain)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, scale, gain = ctx.saved_tensors
        dy = gradient.contiguous().view(rows.shape)
        dx, dgain = torch.empty_like(rows), torch.empty_like(gain)
        norm_backward(*(array(each) for each in (rows, scale, gain, dy, dx, dgain)))
        return dx.view(gradient.shape), dgain, None


@kernel(f"void({_1D}, {_1D})")
def square_forward(x_N: Floats, y_N: Floats) -> None:
    """Fill y = max(x, 0)²; what is not a number stays so."""
    for i in range(len(x_N)):
        positive = np.float32(0) if x_N[i] < 0 else x_N[i]
        y_N[i] = positive * positive


@kernel(f"void({_1D}, {_1D}, {_1D})")
def square_backward(x_N: Floats, dy_N: Floats, dx_N: Floats) -> None:
    """Fill dx = 2 · max(x, 0) · dy."""
    for i in range(len(x_N)):
        positive = np.float32(0) if x_N[i] < 0 else x_N[i]
        dx_N[i] = np.float32(2) * positive * dy_N[i]


@kernel(f"void({_2D}, {_1D}, float64, {_2D}, {_1D})", reassociate=True)
def norm_forward(
    x_RD: Floats, gain_D: Floats, epsilon: float, y_RD: Floats, scale_R: Floats
) -> None:
    """Fill y = x · s · gain and s = 1/√(mean(x²) + ε)."""
    R, D = x_RD.shape
    for r in range(R):
        square = np.float32(0)
        for i in range(D):
            square += x_RD[r, i] * x_RD[r, i]
        scale = np.float32(1 / math.sqrt(square / D + epsilon))
        scale_R[r] = scale
        for i in range(D):
            y_RD[r, i] = x_RD[r, i] * scale * gain_D[i]


@kernel(f"void({_2D}, {_1D}, {_1D}, {_2D}, {_2D}, {_1D})", reassociate=True)
def norm_backward(
    x_RD: Floats, scale_R: Floats, gain_D: Floats, dy_RD: Floats, dx_RD: Floats, dgain_D: Floats
) -> None:
    """Fill the gradients: dx = s · (g·dy − u · mean(g·dy·u)), dg = Σ dy·u, with u = x·s."""
    R, D = x_RD.shape
    total_D = np.zeros(D, np.float64)
    for r in range(R):
        scale = scale_R[r]
        mean = np.float32(0)
        for i in range(D):
            product = dy_RD[r, i] * x_RD[r, i] * scale
            total_D[i] += product
            mean += product * gain_D[i]
        mean /= np.float32(D)
        for i in range(D):
            unit = x_RD[r, i] * scale
            dx_RD[r, i] = scale * (gain_D[i] * dy_RD[r, i] - unit * mean)
    for i in range(D):
        dgain_D[i] = total_D[i]
