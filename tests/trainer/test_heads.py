import pytest
import torch

from trainer.heads import split_heads
from trainer.model import rope_tables
from trainer.ops import rms_norm, rotate


@pytest.mark.parametrize(("batch", "length", "heads", "size"), [(2, 5, 3, 8), (1, 1, 1, 2)])
def test_values_and_gradients_are_those_of_the_parts(batch, length, heads, size):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, 3 * heads * size, generator=generator)
    gains = torch.rand(2, size, generator=generator) + 0.5
    weights = torch.randn(3, batch, length, heads, size, generator=generator)
    cos, sin = rope_tables(length, size, 100.0)

    def textbook(x, gains):
        q, k, v = x.view(batch, length, 3, heads, size).unbind(2)
        rows = cos[:, None], sin[:, None]
        q, k = (rotate(rms_norm(y, g, 1e-6), *rows) for y, g in ((q, gains[0]), (k, gains[1])))
        return q, k, v

    results = []
    for function in (textbook, lambda x, gains: split_heads(x, gains, cos, sin, 1e-6)):
        inputs = [x.clone().requires_grad_(), gains.clone().requires_grad_()]
        values = function(*inputs)
        total = sum((y * w).sum() for y, w in zip(values, weights, strict=True))
        results.append([*values, *torch.autograd.grad(total, inputs)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
