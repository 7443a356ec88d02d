import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from trainer.model import rope_tables
from trainer.ops import relu_squared, rms_norm, rotate


def textbook_rotation(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


COS, SIN = (table.double() for table in rope_tables(5, 8, 100.0))
GAIN = torch.linspace(0.5, 2, 8, dtype=torch.float64)
PAIRS = {
    "relu": (relu_squared, lambda x: F.relu(x).square(), ()),
    "norm": (lambda x, g: rms_norm(x, g, 1e-3), lambda x, g: F.rms_norm(x, (8,), g, 1e-3), (GAIN,)),
    "rotate": (lambda x: rotate(x, COS, SIN), lambda x: textbook_rotation(x, COS, SIN), ()),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients_are_those_of_the_textbook(name, transposed):
    ours, textbook, others = PAIRS[name]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=generator)
    if transposed:  # as the heads are: a view whose positions and heads changed places
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    inputs = [t.clone().requires_grad_() for t in (x, *others)]
    weights = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    found, expected = ours(*inputs), textbook(*inputs)
    assert torch.allclose(found, expected, atol=1e-12)
    gradients = zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    )
    for left, right in gradients:
        assert torch.allclose(left, right, atol=1e-12)


def test_zeros_have_a_norm_and_a_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    rms_norm(x, torch.ones(8), 1e-6).sum().backward()
    assert x.grad.isfinite().all()
