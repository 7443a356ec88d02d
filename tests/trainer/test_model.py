import math

import msgspec
import pytest
import torch

from trainer.config import ModelConfig
from trainer.loss import IGNORED
from trainer.model import Transformer, mean_nats, rope_tables, token_nats
from trainer.ops import rotate
from trainer.presets import PRESETS
from trainer.sizes import flops_per_token, memory_bytes, parameter_count

V, T = 50, 12
CONFIGS = [
    ModelConfig(dim=24, layers=2, heads=3, activation=activation, tied=tied)
    for activation in ("relu2", "swiglu")
    for tied in (False, True)
] + [ModelConfig(dim=24, layers=2, heads=6, kv_heads=2)]


def busy_model(config: ModelConfig) -> Transformer:
    """A model whose zero matrices are filled too, so that every part matters."""
    model = Transformer(config, V, T)
    model.initialise(1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3, generator=generator)
    return model


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (2, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", CONFIGS)
def test_parameter_count_is_what_is_allocated(config):
    assert parameter_count(config, V) == sum(
        p.numel() for p in Transformer(config, V, T).parameters()
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_no_position_sees_a_later_one(config):
    model, before = busy_model(config), tokens()
    after = before.clone()
    after[:, 7:] = (after[:, 7:] + 1) % V
    assert torch.allclose(model(before)[:, :7], model(after)[:, :7], atol=1e-5)
    assert not torch.allclose(model(before)[:, 7:], model(after)[:, 7:], atol=1e-2)


def test_heads_that_share_keys_and_values_equal_heads_with_copies_of_them():
    shared = busy_model(CONFIGS[-1]).blocks[0].attention
    own = Transformer(ModelConfig(dim=24, layers=1, heads=6), V, T).blocks[0].attention
    k, v = shared.kv.data.view(2, 2, 4, 24).repeat_interleave(3, dim=1).view(2, 24, 24)
    own.load_state_dict(
        {name: value for name, value in shared.state_dict().items() if name not in {"q", "kv"}}
        | {"qkv": torch.stack([shared.q.data, k, v])}
    )
    x = torch.randn(2, T, 24, generator=torch.Generator().manual_seed(3))
    cos, sin = rope_tables(T, 4, 10_000.0)
    assert torch.allclose(shared(x, cos, sin), own(x, cos, sin), atol=1e-5)


def test_attention_equals_the_textbook_formula():
    attention = busy_model(CONFIGS[0]).blocks[0].attention
    x = torch.randn(1, T, 24, generator=torch.Generator().manual_seed(3))
    cos, sin = rope_tables(T, 8, 10_000)
    q, k, v = ((x @ w.T).view(1, T, 3, 8).transpose(1, 2) for w in attention.qkv)
    q, k = (rotate(y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt(), cos, sin) for y in (q, k))
    scores = q @ k.mT / math.sqrt(8) + torch.full((T, T), -torch.inf).triu(1)
    expected = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, T, 24) @ attention.out.T
    assert torch.allclose(attention(x, cos, sin), expected, atol=1e-4)


def test_rope_keeps_lengths_and_depends_on_distance_only():
    cos, sin = rope_tables(T, 8, 10_000)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator).expand(T, 8) for _ in range(2))
    rotated_q, rotated_k = rotate(q, cos, sin), rotate(k, cos, sin)
    assert torch.allclose(rotated_q.norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    products = rotated_q @ rotated_k.T
    assert torch.allclose(products[2, 0], products[9, 7], atol=1e-4)
    assert not torch.allclose(products[2, 0], products[3, 0], atol=1e-3)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_first_loss_is_that_of_a_uniform_guess(config):
    model = Transformer(config, V, T)
    model.initialise(1)
    loss = mean_nats(model, tokens(0), tokens(1)).item()
    tolerance = 0.15 if config.tied else 1e-5  # an untied head starts at zero
    assert loss == pytest.approx(math.log(V), abs=tolerance)


def test_a_seed_fixes_the_weights():
    first, second, other = (Transformer(CONFIGS[0], V, T) for _ in range(3))
    first.initialise(5)
    torch.rand(3)  # the global generator has no say
    second.initialise(5)
    other.initialise(6)
    assert torch.equal(first.embedding, second.embedding)
    assert not torch.equal(first.embedding, other.embedding)


def test_ignored_targets_have_no_loss():
    model, targets = busy_model(CONFIGS[0]), tokens(1)
    masked = targets.clone()
    masked[:, ::2] = IGNORED
    nats = token_nats(model, tokens(0), masked)
    full = token_nats(model, tokens(0), targets)
    assert torch.equal(nats[:, ::2], torch.zeros_like(nats[:, ::2]))
    assert torch.allclose(nats[:, 1::2], full[:, 1::2])
    assert mean_nats(model, tokens(0), masked).item() == pytest.approx(full[:, 1::2].mean().item())


def test_flops_of_a_known_model():
    """GPT-2 small's shape with its tied head: 6·N + 12·L·D·T with N = 85M + 38.6M weights."""
    config = ModelConfig(dim=768, layers=12, heads=12, tied=True)
    matrices = 12 * 12 * 768**2 + 50257 * 768
    assert flops_per_token(config, 50257, 1024) == 6 * matrices + 12 * 12 * 768 * 1024


def test_memory_grows_with_the_batch():
    small, large = (memory_bytes(CONFIGS[0], V, T, batch) for batch in (1, 9))
    assert 16 * parameter_count(CONFIGS[0], V) < small < large


@pytest.mark.parametrize(("config", "bf16"), [(CONFIGS[0], False), (CONFIGS[-1], True)])
def test_a_compiler_finds_one_graph_with_the_same_numbers_and_gradients(config, bf16):
    model = busy_model(msgspec.structs.replace(config, layers=1))
    torch._dynamo.reset()
    compiled = torch.compile(model.hidden, backend="eager", fullgraph=True)
    results = []
    for hidden in (compiled, model.hidden):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            x = hidden(tokens())
        results.append([x, *torch.autograd.grad(x.sum(), list(model.blocks.parameters()))])
    torch._dynamo.reset()
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("config", CONFIGS)
def test_bf16_products_change_the_loss_by_their_rounding_only(config):
    model = busy_model(config)
    exact = mean_nats(model, tokens(0), tokens(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_nats(model, tokens(0), tokens(1))
        stream = model.hidden(tokens(0))
    assert stream.dtype == found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=5e-3)
    assert found.item() != exact.item()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_model_without_memory_gets_the_same_weights(config):
    there = Transformer(config, V, T)
    there.initialise(5)
    with torch.device("meta"):
        nowhere = Transformer(config, V, T)
    assert nowhere.embedding.is_meta
    nowhere.to_empty(device="cpu")
    for tensor in (*nowhere.parameters(), *nowhere.buffers()):
        tensor.data.fill_(torch.nan)
    nowhere.initialise(5)
    for ours, theirs in zip(
        (*nowhere.parameters(), *nowhere.buffers()),
        (*there.parameters(), *there.buffers()),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_the_largest_preset_needs_no_memory_to_be_made():
    preset = PRESETS["8b"]
    with torch.device("meta"):
        model = Transformer(preset.model, preset.vocabulary, preset.sequence_length)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(
        preset.model, preset.vocabulary
    )


@pytest.mark.parametrize("eos", [None, 3])
def test_recomputed_blocks_give_the_same_gradients_bit_for_bit(eos):
    model = busy_model(CONFIGS[0])
    model.eos = eos
    results = []
    for model.recompute in (False, True):
        loss = mean_nats(model, tokens(0), tokens(1))
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_recomputed_blocks_keep_less():
    model = busy_model(CONFIGS[0])
    kept = []
    for model.recompute in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            model.hidden(tokens())
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3
