import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import loss
from trainer.loss import IGNORED, mean_nats_of, nats_of


def problem(seed: int, positions: int, vocabulary: int, scale: float = 1.0):
    """Logits far from uniform, and a third of the targets ignored."""
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(positions, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(vocabulary, 4, dtype=torch.float64, generator=generator)
    targets = torch.randint(vocabulary, (positions,), generator=generator)
    targets[1::3] = IGNORED
    return x.requires_grad_(), weight.requires_grad_(), targets


def textbook(x, weight, targets, reduction="mean"):
    return F.cross_entropy(x @ weight.T, targets, ignore_index=IGNORED, reduction=reduction)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(loss, "MIN_ROWS", 5)
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 23), st.integers(2, 9), st.sampled_from([0.1, 1, 300]))
def test_loss_and_gradients_are_those_of_the_textbook(seed, positions, vocabulary, scale):
    x, weight, targets = problem(seed, positions, vocabulary, scale)
    expected = torch.autograd.grad(3 * textbook(x, weight, targets), (x, weight))
    found = torch.autograd.grad(3 * mean_nats_of(x, weight, targets), (x, weight))
    assert mean_nats_of(x, weight, targets).item() == pytest.approx(
        textbook(x, weight, targets).item()
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 23), st.integers(2, 9))
def test_nats_are_those_of_the_textbook_and_zero_where_ignored(seed, positions, vocabulary):
    x, weight, targets = problem(seed, positions, vocabulary)
    found = nats_of(x, weight, targets)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), textbook(x, weight, targets, "none"), atol=1e-5)
    assert (found[targets == IGNORED] == 0).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 23), st.integers(1, 4))
def test_the_parts_of_a_batch_add_up_to_it(seed, positions, parts):
    x, weight, targets = problem(seed, positions, 5)
    count = int((targets != IGNORED).sum())
    pieces = [mean_nats_of(x[m::parts], weight, targets[m::parts], count) for m in range(parts)]
    whole = torch.autograd.grad(mean_nats_of(x, weight, targets), (x, weight))
    for ours, theirs in zip(torch.autograd.grad(sum(pieces), (x, weight)), whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("below", [60.0, 80.0, 100.0, 300.0])
def test_improbable_targets_keep_their_digits(below):
    """Softmax's probability of the last one is a denormal in fp32 from 88 below the top, then 0."""
    x, weight = torch.eye(2), torch.tensor([[below, 0.0], [0.0, 0.0]])
    targets = torch.tensor([1, 0])
    expected = textbook(x.double(), weight.double(), targets, "sum").item()
    assert mean_nats_of(x, weight, targets, 1).item() == pytest.approx(expected, rel=1e-6)


def test_nothing_to_learn_from_is_not_a_number():
    x, weight, _ = problem(0, 4, 3)
    assert mean_nats_of(x, weight, torch.full((4,), IGNORED)).isnan()
    assert (nats_of(x, weight, torch.full((4,), IGNORED)) == 0).all()


def test_no_tensor_holds_all_logits():
    x, weight, targets = problem(0, 20, 7)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in [result] if isinstance(t, torch.Tensor))
            return result

    with Watch():
        mean_nats_of(x, weight, targets).backward()
        nats_of(x, weight, targets)
    assert max(sizes) < 20 * 7


def test_under_autocast_products_are_bf16_and_sums_fp32():
    x, weight, targets = (
        t.detach().float().requires_grad_() if t.is_floating_point() else t
        for t in problem(0, 60, 30)
    )
    exact = mean_nats_of(x, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_nats_of(x, weight, targets)
        nats = nats_of(x, weight, targets)
    assert found.dtype == nats.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-2)
    # The same rounded logits go into both, so that only a sum in bf16 could tell them apart.
    assert found.item() == pytest.approx((nats.sum() / (targets != IGNORED).sum()).item(), rel=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight)),
        torch.autograd.grad(exact, (x, weight)),
        strict=True,
    ):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()
