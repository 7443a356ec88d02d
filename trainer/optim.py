"""Optimisers and the schedule of the learning rate.

Muon (Jordan et al. 2024) steps along the nearest semi-orthogonal matrix to the momentum. It trains
the hidden matrices; embedding, head and gains have no such geometry and take AdamW. On the CPU
Newton–Schulz runs in fp32: bf16 products are about 50 times slower there, and the stock
`torch.optim.Muon` always uses bf16. On CUDA it runs in bf16.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.sharded import cut_like, whole
from trainer.sizes import MUON_VALUES

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic of Jordan et al. 2024: singular values come out within 0.7…1.2."""

NEWTON_SCHULZ_STEPS = 5

MUON_RMS = 0.2
"""RMS of a Muon update at learning rate 1, that of a typical AdamW update (Liu et al. 2025,
"Muon is Scalable", eq. 4), so that one learning rate and one weight decay fit every shape."""

ADAM_BETAS = (0.9, 0.95)
ADAM_EPSILON = 1e-10


def learning_rate_factor(
    step: int, steps: int, kind: Literal["wsd", "cosine"], warmup: float, decay: float
) -> float:
    """Return the multiple of the peak learning rate at `step` of `steps`, in (0, 1].

    Both kinds rise linearly over the first `warmup * steps` steps. "wsd" (Hu et al. 2024, MiniCPM)
    then holds and falls linearly towards 0 over the last `decay * steps`; "cosine" falls to 0.1
    of the peak (Hoffmann et al. 2022).
    """
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if kind == "cosine":
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    falling = round(decay * steps)
    return min(1.0, (steps - step) / falling) if falling else 1.0


def orthogonalise(gradients: Tensor) -> Tensor:
    """Map each matrix U·S·Vᵀ of a stack `[n, rows, columns]` to about U·Vᵀ (same shape, fp32).

    Five steps of a quintic Newton–Schulz iteration after scaling to unit Frobenius norm.
    """
    a, b, c = NEWTON_SCHULZ
    wide = gradients.shape[-2] <= gradients.shape[-1]
    x = gradients if wide else gradients.mT
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    result: Tensor = x.to(torch.float32)
    return result if wide else result.mT


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for parameters that are matrices or stacks of matrices.

    Matrices of one shape (up to a transpose) go through Newton–Schulz together, as many as
    `MUON_VALUES` allows: what is at work has a bound, also where weights are cut over ranks and
    every rank puts whole updates together. Weight decay is decoupled.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the gradients in `.grad`; `closure` is not used."""
        for group in self.param_groups:
            stacks: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = tuple(sorted(parameter.shape[-2:]))
                    stacks.setdefault(shape, []).append(parameter)
            for stack in stacks.values():
                for members in _in_parts(stack, MUON_VALUES):
                    self._update(members, group)

    def _update(self, members: list[Tensor], group: dict[str, Any]) -> None:
        """Take the step of parameters whose matrices have one shape."""
        found = [whole(self._momentum(parameter, group["momentum"])) for parameter in members]
        updates = [update.view(-1, *update.shape[-2:]) for update in found]
        wide = [u if u.shape[-2] <= u.shape[-1] else u.mT for u in updates]
        results = torch.split(orthogonalise(torch.cat(wide)), [len(u) for u in wide])
        for parameter, update, result in zip(members, updates, results, strict=True):
            turned = result if update.shape == result.shape else result.mT
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(
                cut_like(turned.reshape(parameter.shape), parameter),
                alpha=-group["lr"] * MUON_RMS * math.sqrt(max(update.shape[-2:])),
            )

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the running mean of the gradient; return it one Nesterov step ahead."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"]
        gradient: Tensor = parameter.grad  # type: ignore[assignment]
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def _in_parts(parameters: list[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Cut a list into parts of at most `most` values, or of one parameter that has more."""
    part: list[Tensor] = []
    for parameter in parameters:
        if part and sum(map(torch.numel, part)) + parameter.numel() > most:
            yield part
            part = []
        part.append(parameter)
    yield part


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Make the optimisers of a model: one for the hidden matrices, AdamW for the rest.

    Every parameter group remembers its peak learning rate as `peak_lr`. Only hidden matrices decay.
    """
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_hidden = name.startswith("blocks.") and parameter.ndim >= 2
        (hidden if is_hidden else rest).append(parameter)
    adam: dict[str, Any] = {"betas": ADAM_BETAS, "eps": ADAM_EPSILON, "fused": True}
    first: torch.optim.Optimizer
    if config.optimizer == "muon":
        first = Muon(hidden, lr=config.learning_rate, weight_decay=config.weight_decay)
    else:
        first = torch.optim.AdamW(
            hidden, lr=config.learning_rate, weight_decay=config.weight_decay, **adam
        )
    # Two groups, since with fsdp2 tables are cut over the ranks and gains are not.
    groups = [
        {"params": [p for p in rest if p.ndim > 1]},
        {"params": [p for p in rest if p.ndim == 1]},
    ]
    second = torch.optim.AdamW(groups, lr=config.embedding_learning_rate, weight_decay=0.0, **adam)
    for optimizer in (first, second):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [first, second]


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
