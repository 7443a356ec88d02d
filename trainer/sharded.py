"""Weights, gradients and optimisers cut over the ranks (FSDP2, Zhao et al. 2023), same result.

Every rank keeps the rows of each parameter that `fully_shard` gives it, and has whole ones only
while a block is at work. Where torch would reduce gradients in an order of its own, `InOrder` adds
microbatches one by one, as `trainer/reduce.py` does. What needs whole matrices (a gradient's norm,
Muon) gathers one parameter at a time. Of a checkpoint each rank writes its own `Piece`s, and any
number of ranks reads them. torch's modules for this take 0.8 s to import, so only a run that is cut
imports them.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.checkpoint import Piece, Pieces
from trainer.model import Transformer


class InOrder:
    """Takes the place of reduce-scatter for one module (torch's `ReduceScatter` protocol).

    Keeps the sum of the step's microbatches so far, and gives that instead of the last round's.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def clear(self) -> None:
        """Begin a step."""
        self._sum = None

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return memory for a collective."""
        return torch.empty(size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: Any,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Add each rank's microbatch in the order of ranks; `op` (a mean) is not looked at."""
        found = torch.empty_like(input_tensor)
        dist.all_to_all_single(found, input_tensor, group=group)
        first, *others = found.view(dist.get_world_size(group), -1)
        total = first.clone() if self._sum is None else self._sum.add_(first)
        for row in others:
            total += row
        self._sum = total
        output_tensor.copy_(total)


def shard(model: Transformer, world_size: int, device: torch.device) -> list[InOrder]:
    """Cut a model's matrices over all ranks, in place; returns what sums their gradients.

    The model may be on the meta device, and get its memory, of its parts only, on `device` after.

    A stack of matrices (Q, K and V; gate and value) is cut along its rows, where the ranks divide
    them, and not into matrices: there are fewer of those than ranks. Gains stay whole on every
    rank. They are few, and the last elements of a short vector go through other instructions than
    the first ones, so that AdamW would differ in the last bit.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import Shard

    def placement(parameter: nn.Parameter) -> Shard:
        stacked = parameter.ndim == 3 and parameter.shape[1] % world_size == 0
        return Shard(1 if stacked else 0)

    gains = {parameter for parameter in model.parameters() if parameter.ndim == 1}
    mesh = init_device_mesh(device.type, (world_size,))
    modules = [*model.blocks, model]
    sums = []
    for module in modules:
        fully_shard(module, mesh=mesh, ignored_params=gains, shard_placement_fn=placement)
        if isinstance(module, FSDPModule):
            sums.append(InOrder())
            module.set_custom_reduce_scatter(sums[-1])  # type: ignore[arg-type]
    register_fsdp_forward_method(model, "hidden")
    return sums


def reshard(model: nn.Module) -> None:
    """Let go of what a forward pass without a backward pass left whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_cut(value: Any) -> bool:
    """Whether a value is a tensor (`DTensor`) of which each rank has a part."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def uncut(model: nn.Module) -> list[Tensor]:
    """Return the parameters that every rank has whole."""
    return [parameter for parameter in model.parameters() if not is_cut(parameter)]


def whole(value: Any) -> Any:
    """Return a copy of nested dicts and lists with every cut tensor put together, on all ranks."""
    if is_cut(value):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def pieces(value: Any) -> Any:
    """Return nested dicts and lists with this rank's `Piece` in place of every cut tensor."""
    if is_cut(value):
        mesh, (placement,) = value.device_mesh, value.placements
        dim, size = placement.dim, value.shape[placement.dim]
        share = -(-size // mesh.size())  # as torch.chunk: the last ranks may have less, or nothing
        return Piece(value.to_local(), dim, min(size, mesh.get_local_rank() * share), size)
    if isinstance(value, dict):
        return {key: pieces(item) for key, item in value.items()}
    return [pieces(item) for item in value] if isinstance(value, list) else value


def taken(stored: Tensor | Pieces, parameter: Tensor) -> Tensor:
    """Return a checkpoint's tensor in memory of its own, cut as `parameter` is."""
    tensor = stored.whole() if isinstance(stored, Pieces) else stored
    return cut_like(tensor, parameter).clone()


def cut_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, as `parameter` is cut (not at all: the same)."""
    if not is_cut(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like: Any = parameter
    tensor = tensor.to(parameter.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def taken_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's state out of a checkpoint, cut as its parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        index: {
            name: taken(value, parameters[index]) if isinstance(value, Tensor | Pieces) else value
            for name, value in of_parameter.items()
        }
        for index, of_parameter in state["state"].items()
    }
    return state | {"state": moments}


def clip_sharded(model: nn.Module, limit: float) -> Tensor:
    """Scale gradients to a total norm of at most `limit`; return the old norm, of whole tensors.

    A sum of the shards' squares would depend on their number.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norms = [torch.linalg.vector_norm(whole(p.grad)) for p in parameters]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    nn.utils.clip_grads_with_norm_(parameters, limit or float("inf"), total, foreach=False)
    return total
