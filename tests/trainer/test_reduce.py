import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import reduce
from trainer.ranks import ALONE, Ranks
from trainer.reduce import OrderedSum


class Rehearsed(Ranks):
    """One of several ranks that are called in lockstep: `transpose` and `join` see all of them."""

    def __init__(self, rank, world_size, sent, joined):
        self.rank, self.world_size = rank, world_size
        self.sent, self.joined = sent, joined
        self.number = 0

    def transpose(self, shares):
        rows = self.sent[self.number]
        self.number += 1
        return torch.stack([row.view(self.world_size, -1)[self.rank] for row in rows])

    def join(self, share):
        self.joined.append(share)
        return share.repeat(self.world_size)


@given(seed=st.integers(0, 999), world=st.integers(1, 4), rounds=st.integers(1, 3))
def test_every_share_is_the_sum_in_the_order_of_microbatches(seed, world, rounds):
    """Whatever the number of ranks: the shares, put together, are what one process adds up."""
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(7, generator=generator) * 10.0**m for m in range(world * rounds)]
    expected = gradients[0].clone()
    for gradient in gradients[1:]:
        expected += gradient
    padded = [torch.cat([g, torch.zeros(-7 % world)]) for g in gradients]
    sent = [padded[k * world : (k + 1) * world] for k in range(rounds)]
    found = []
    for rank in range(world):
        parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))]
        sums = OrderedSum(Rehearsed(rank, world, sent, found), parameters)
        for k in range(rounds):
            mine = gradients[k * world + rank]
            parameters[0].grad, parameters[1].grad = mine[:4].view(2, 2), mine[4:]
            sums.add()
        sums.finish()
    if world > 1:
        assert torch.equal(torch.cat(found)[:7], expected)


def test_alone_gradients_are_left_to_autograd():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.arange(3.0)
    sums = OrderedSum(ALONE, [parameter])
    sums.add()
    sums.finish()
    assert torch.equal(parameter.grad, torch.arange(3.0))


def test_gradients_come_back_in_their_places_through_many_buckets(monkeypatch):
    monkeypatch.setattr(reduce, "BUCKET", 4)

    class Two(Ranks):
        """Rank 0 of two that have the same gradient, whose share rank 1 mirrors."""

        world_size = 2

        def transpose(self, shares):
            self.seen = shares
            self.halves = [*getattr(self, "halves", []), shares]
            return torch.stack([shares[0], shares[0]])

        def join(self, share):
            return 2 * self.halves.pop(0).flatten()

    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (1, 6, 2)]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    before = [parameter.grad.clone() for parameter in parameters]
    sums = OrderedSum(Two(), parameters)
    sums.add()
    assert all(parameter.grad is None for parameter in parameters)
    sums.finish()
    for parameter, gradient in zip(parameters, before, strict=True):
        assert parameter.grad.tolist() == pytest.approx((2 * gradient).tolist())
