import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from trainer import ops
from trainer.model import rope_tables
from trainer.ops import _is_amd, linear, product, relu_squared, rms_norm, rotate

GENERATOR = torch.Generator().manual_seed(1)
GAIN = torch.linspace(0.5, 2, 24)
WEIGHT = torch.randn(10, 24, generator=GENERATOR)
PAIRS = {
    "relu": (relu_squared, lambda x: F.relu(x).square(), ()),
    "norm": (
        lambda x, g: rms_norm(x, g, 1e-3),
        lambda x, g: x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * g,
        (GAIN,),
    ),
    "linear": (linear, lambda x, w: x @ w.T, (WEIGHT,)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_textbook(name, transposed, dtype):
    """In fp32 the kernels of a CPU, in fp64 what other devices do."""
    ours, textbook, others = PAIRS[name]
    x = torch.randn(2, 3, 5, 24, generator=GENERATOR)
    if transposed:  # a view whose dimensions changed places
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    inputs = [t.to(dtype).requires_grad_() for t in (x, *others)]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    found, expected = ours(*inputs), textbook(*exact)
    assert found.dtype == dtype
    weights = torch.randn(expected.shape, dtype=dtype, generator=GENERATOR)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    assert torch.allclose(found.double(), expected, atol=tolerance)
    for left, right in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), exact),
        strict=True,
    ):
        assert torch.allclose(left.double(), right, atol=2 * tolerance)


def test_rotation_is_a_complex_product_and_its_gradient_turns_back():
    cos, sin = (table.double() for table in rope_tables(5, 8, 100.0))
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    y = rotate(x, cos, sin)
    turned = torch.complex(*x.chunk(2, -1)) * torch.complex(cos, sin)
    assert torch.allclose(y, torch.cat([turned.real, turned.imag], -1))
    (gradient,) = torch.autograd.grad(y, x, y.detach())
    assert torch.allclose(gradient, x)


def test_zeros_have_a_norm_and_a_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    rms_norm(x, torch.ones(8), 1e-6).sum().backward()
    assert x.grad.isfinite().all()


def test_what_is_not_a_number_stays_so():
    """A step with such a loss is skipped, so nothing on the way may hide it."""
    x = torch.tensor([[1.0, torch.nan, -1.0, 2.0]], requires_grad=True)
    assert relu_squared(x).isnan().tolist() == [[False, True, False, False]]
    assert rms_norm(x, torch.ones(4), 1e-6).isnan().all()
    (gradient,) = torch.autograd.grad(relu_squared(x).sum(), x)
    assert gradient.isnan().tolist() == [[False, True, False, False]]


def test_bf16_is_normalised_and_rotated_in_fp32():
    x = torch.randn(3, 256, generator=GENERATOR).bfloat16()
    exact = rms_norm(x.double(), torch.ones(256, dtype=torch.float64), 1e-6)
    found = rms_norm(x, torch.ones(256), 1e-6)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-6)
    cos, sin = rope_tables(3, 256, 100.0)
    assert rotate(x, cos, sin).dtype == torch.float32


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_onednn_and_mkl_give_the_same_products_and_gradients(monkeypatch):
    """Which of the two multiplies follows from the CPU; here both do."""
    x, empty = torch.randn(2, 7, 24, generator=GENERATOR), torch.empty(0, 24)
    weight = WEIGHT.clone().requires_grad_()
    found = {}
    for name, library in (("mkl", None), ("onednn", torch.ops.mkldnn._linear_pointwise)):
        monkeypatch.setattr(ops, "_ONEDNN", library)
        assert product(empty, WEIGHT).shape == (0, 10)
        leaf = x.clone().requires_grad_()
        y = linear(leaf, weight)
        gradients = torch.autograd.grad(y.square().sum(), (leaf, weight))
        found[name] = [product(x[0], WEIGHT), y, *gradients]
    for mkl, onednn in zip(*found.values(), strict=True):
        assert torch.allclose(mkl, onednn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("vendor_id\t: AuthenticAMD\n", True), ("vendor_id\t: GenuineIntel\n", False)],
)
def test_the_vendor_is_read(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert _is_amd(tmp_path / "cpuinfo") is expected
    assert not _is_amd(tmp_path / "nowhere")
