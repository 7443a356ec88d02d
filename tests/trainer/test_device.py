import contextlib

import pytest
import torch
from torch import nn

from shards.errors import PlatformError
from trainer.config import ModelConfig
from trainer.device import (
    autocast,
    choose_device,
    compile_blocks,
    make_deterministic,
    precision,
    take_device,
    wait_for,
)
from trainer.model import Transformer, mean_nats

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that torch sees two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_a_gpu_that_is_not_there_is_an_error(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(tiny()) == CPU
    with pytest.raises(PlatformError, match="'cuda'"):
        choose_device(tiny(device="cuda"))


def test_every_rank_takes_the_gpu_of_its_number(tiny, gpus, monkeypatch):
    assert choose_device(tiny()) == torch.device("cuda", 0)
    assert choose_device(tiny(device="cpu")) == CPU
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(tiny()) == GPU
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(PlatformError, match="LOCAL_RANK = 2, but torch sees 2 GPUs"):
        choose_device(tiny())


def test_bf16_on_a_gpu_only(tiny):
    assert precision(tiny(), CPU) == precision(tiny(precision="fp32"), GPU) == torch.float32
    assert precision(tiny(), GPU) == precision(tiny(precision="bf16"), GPU) == torch.bfloat16
    with pytest.raises(PlatformError, match="bf16' on a CPU"):
        precision(tiny(precision="bf16"), CPU)
    assert isinstance(autocast(tiny(), CPU), contextlib.nullcontext)
    assert isinstance(autocast(tiny(precision="fp32"), GPU), contextlib.nullcontext)


@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
def test_a_step_in_bf16_learns_the_same_into_fp32_weights(activation):
    """What a GPU does by default, here by torch's autocast for CPUs."""
    model = Transformer(ModelConfig(dim=16, layers=2, heads=2, activation=activation), 19, 8)
    model.initialise(1)
    for block in model.blocks:  # as initialised, blocks write nothing
        nn.init.normal_(block.attention.out, std=0.1)
        nn.init.normal_(block.mlp.down, std=0.1)
    nn.init.normal_(model.head, std=0.1)
    tokens = torch.randint(0, 19, (4, 9), generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = mean_nats(model, tokens[:, :-1], tokens[:, 1:])
        torch.autograd.backward(loss)
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((float(loss.detach()), gradient))
    (loss, gradient), (rough_loss, rough) = found
    assert rough_loss == pytest.approx(loss, rel=0.01)
    assert rough_loss != loss
    assert torch.cosine_similarity(gradient, rough, dim=0) > 0.99


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo
def test_blocks_are_compiled_once_for_training_and_not_for_validation(monkeypatch):
    """Through torch's own tracing; only the code that Inductor would make is left out."""
    compiled, real = [], torch.compile

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    def traced(f, *, dynamic, options):
        assert options == {"deterministic": True}
        return real(f, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", traced)
    model = Transformer(ModelConfig(dim=16, layers=3, heads=2), 19, 8)
    model.initialise(1)
    names, tokens = list(model.state_dict()), torch.zeros(1, 8, dtype=torch.int64)
    expected = model.hidden(tokens)
    compile_blocks(model.blocks)
    assert list(model.state_dict()) == names
    with torch.no_grad():
        for length in (8, 5, 3):
            model.hidden(tokens[:, :length])
    assert compiled == []
    assert torch.equal(model.hidden(tokens), expected)
    model.hidden(tokens)
    assert len(compiled) == 1


@pytest.mark.parametrize(("device", "warns"), [(CPU, True), (GPU, False)])
def test_on_a_gpu_what_cannot_be_deterministic_is_an_error(tiny, device, warns):
    """With a warning only, attention's backward pass would go on adding in any order."""
    before = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision("high")
    try:
        make_deterministic(tiny(), device)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.use_deterministic_algorithms(True, warn_only=before)


def test_a_gpu_becomes_the_current_one_and_its_peak_begins_anew(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda d: calls.append(("current", d)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda d: calls.append(("reset", d)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda d: calls.append(("wait", d)))
    for device in (CPU, GPU):
        take_device(device)
        wait_for(device)
    assert calls == [("current", GPU), ("reset", GPU), ("wait", GPU)]
