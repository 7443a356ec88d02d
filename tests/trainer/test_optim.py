import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.config import ModelConfig, TrainConfig
from trainer.model import Transformer, mean_nats
from trainer.optim import (
    MUON_RMS,
    Muon,
    build_optimizers,
    learning_rate_factor,
    orthogonalise,
    set_learning_rate,
)


@given(
    steps=st.integers(1, 300),
    kind=st.sampled_from(["wsd", "cosine"]),
    warmup=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
)
def test_schedule_rises_then_falls_within_bounds(steps, kind, warmup, decay):
    factors = [learning_rate_factor(s, steps, kind, warmup, decay) for s in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = max(round(warmup * steps) - 1, 0)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_schedule_values():
    wsd = [learning_rate_factor(s, 10, "wsd", 0.2, 0.4) for s in range(10)]
    assert wsd == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert learning_rate_factor(5, 10, "cosine", 0, 0) == pytest.approx(0.55)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (1, 20, 6)])
def test_orthogonalise_flattens_singular_values_and_keeps_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    results = orthogonalise(matrices)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert s.max() / s.min() > 1.5
    values = torch.linalg.svdvals(results)
    assert 0.6 < values.min() < values.max() < 1.3
    cosine = nn.functional.cosine_similarity(results.flatten(1), (u @ vh).flatten(1))
    assert cosine.min() > 0.95


def test_muon_treats_a_stack_as_its_matrices():
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(3, 4, 6, generator=generator) for _ in range(2))
    stack = nn.Parameter(start.clone())
    single = [nn.Parameter(matrix.clone()) for matrix in start]
    turned = nn.Parameter(start[0].T.clone())
    optimizer = Muon([stack, *single, turned], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        stack.grad = gradient.clone()
        turned.grad = gradient[0].T.clone()
        for parameter, part in zip(single, gradient, strict=True):
            parameter.grad = part.clone()
        optimizer.step()
    for parameter, part in zip(single, stack, strict=True):
        assert torch.allclose(parameter, part, atol=1e-6)
    assert torch.allclose(turned.T, stack[0], atol=1e-6)


@pytest.mark.parametrize("most", [1, 3 * 96 * 96, 10 * 96 * 96])
@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
def test_muon_takes_the_same_step_in_any_parts(monkeypatch, most, activation):
    def stepped():
        torch.set_num_threads(1)  # then bit for bit

        config = ModelConfig(dim=96, layers=3, heads=2, kv_heads=1, activation=activation)
        model = Transformer(config, 20, 8)
        model.initialise(0)
        muon, _ = build_optimizers(model, TrainConfig(model=config))
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            for parameter in muon.param_groups[0]["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            muon.step()
        return muon.param_groups[0]["params"]

    together = stepped()
    monkeypatch.setattr("trainer.optim.MUON_VALUES", most)
    assert all(map(torch.equal, stepped(), together))


def test_a_muon_update_has_the_stated_rms():
    parameter = nn.Parameter(torch.zeros(16, 64))
    parameter.grad = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    Muon([parameter], lr=1.0, weight_decay=0.0).step()
    assert parameter.square().mean().sqrt().item() == pytest.approx(MUON_RMS, rel=0.25)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_one_optimizer_and_the_loss_falls(name):
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), 20, 8)
    model.initialise(0)
    config = TrainConfig(optimizer=name, learning_rate=0.02, embedding_learning_rate=0.02)
    optimizers = build_optimizers(model, config)
    covered = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in covered} == {id(p) for p in model.parameters()}
    assert len(covered) == len(list(model.parameters()))
    hidden = optimizers[0].param_groups[0]["params"]
    assert {p.ndim for p in hidden} == {2, 3}
    tokens = torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(20):
        loss = mean_nats(model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_only_hidden_matrices_decay_and_rates_scale_from_their_peak():
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), 20, 8)
    first, second = build_optimizers(model, TrainConfig())
    assert first.param_groups[0]["weight_decay"] > 0 == second.param_groups[0]["weight_decay"]
    for factor in (0.5, 0.25):
        set_learning_rate([first, second], factor)
        assert first.param_groups[0]["lr"] == TrainConfig().learning_rate * factor
        assert second.param_groups[0]["lr"] == TrainConfig().embedding_learning_rate * factor
