"""Gradients of all microbatches, summed in their order whoever computed them.

Floating-point addition is not associative, so an all-reduce gives other bits for another number of
ranks. Here every rank gets one share of each rank's gradient (all-to-all), adds the microbatches of
that share one by one in their order, and the sums are put together at the end (all-gather). That is
how a ring all-reduce moves bytes too: 2·(W − 1)/W of the gradient for each rank of W where each has
one microbatch, and (k + 1)·(W − 1)/W where it has k.
"""

import torch
from torch import Tensor

from trainer.ranks import Ranks

BUCKET = 2**22
"""Elements that travel at once, 16 MiB in fp32."""


class OrderedSum:
    """The gradients of one step; ranks call its methods in step with each other."""

    def __init__(self, ranks: Ranks, parameters: list[Tensor]) -> None:
        self._ranks = ranks
        self._parameters = parameters
        self._sums: list[Tensor] = []

    def add(self) -> None:
        """Add every parameter's `.grad`, that of one microbatch of each rank, and clear it.

        The k-th call of rank r of W is microbatch k·W + r. Alone, autograd adds in this very order.
        """
        if self._ranks.world_size == 1:
            return
        for number, bucket in enumerate(self._buckets()):
            rows = self._ranks.transpose(bucket.view(self._ranks.world_size, -1))
            if len(self._sums) == number:
                self._sums.append(rows[0].clone())
            else:
                self._sums[number] += rows[0]
            for row in rows[1:]:
                self._sums[number] += row
        for parameter in self._parameters:
            parameter.grad = None

    def finish(self) -> None:
        """Put the sums into every parameter's `.grad`."""
        if self._ranks.world_size == 1:
            return
        flat = self._new_flat()
        start = 0
        for share in self._sums:
            bucket = self._ranks.join(share)
            flat[start : start + len(bucket)] = bucket
            start += len(bucket)
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            parameter.grad = flat[start:end].view_as(parameter)
            start = end

    def _buckets(self) -> list[Tensor]:
        """Cut the gradients, end to end, into parts whose lengths the ranks divide."""
        flat = self._new_flat()
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            if parameter.grad is not None:
                flat[start:end] = parameter.grad.flatten()
            start = end
        size = -(-BUCKET // self._ranks.world_size) * self._ranks.world_size
        return list(torch.split(flat, size))

    def _new_flat(self) -> Tensor:
        count = sum(parameter.numel() for parameter in self._parameters)
        padding = -count % self._ranks.world_size
        return self._parameters[0].new_zeros(count + padding)
