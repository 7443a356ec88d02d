"""The files are read back by the format's specification, and the model by Qwen3's equations."""

import json
import struct

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from click.testing import CliRunner

from shards.errors import DatasetError
from trainer.config import ModelConfig
from trainer.data import read_documents
from trainer.export import export_run, qwen3_config, qwen3_tensors, write_model
from trainer.export_cli import export_command
from trainer.loop import train
from trainer.model import Transformer
from trainer.progress import Reporter
from trainer.tensor_file import encode_tensors

V, T = 31, 12


def read_back(data):
    (size,) = struct.unpack("<Q", data[:8])
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    tensors, end = {}, 0
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        start, stop = entry["data_offsets"]
        assert start == end
        end = stop
        raw = bytearray(data[8 + size + start : 8 + size + stop])
        tensors[name] = torch.frombuffer(raw, dtype=torch.float32).view(entry["shape"])
    assert 8 + size + end == len(data)
    return tensors, metadata


def rms(x, gain, epsilon):
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * gain


def qwen3(w, c, tokens):
    """Logits by the equations of transformers' modeling_qwen3, without its classes."""
    eps, K = c["rms_norm_eps"], c["head_dim"]
    x = w["model.embed_tokens.weight"][tokens]
    B, n, _ = x.shape
    base = c["rope_parameters"]["rope_theta"]
    angle = torch.arange(n)[:, None] * base ** (-torch.arange(0, K, 2) / K)
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))

    def turn(y):
        return y * cos + torch.cat([-y[..., K // 2 :], y[..., : K // 2]], -1) * sin

    for layer in range(c["num_hidden_layers"]):
        p = {k.split(f"layers.{layer}.")[1]: v for k, v in w.items() if f"layers.{layer}." in k}
        y = rms(x, p["input_layernorm.weight"], eps)
        q, k, v = (
            (y @ p[f"self_attn.{name}_proj.weight"].T).view(B, n, -1, K).transpose(1, 2)
            for name in "qkv"
        )
        q = turn(rms(q, p["self_attn.q_norm.weight"], eps))
        k = turn(rms(k, p["self_attn.k_norm.weight"], eps))
        groups = c["num_attention_heads"] // c["num_key_value_heads"]
        k, v = (z.repeat_interleave(groups, 1) for z in (k, v))
        scores = (q @ k.transpose(-1, -2)) * K**-0.5
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
        out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, n, -1)
        x = x + out @ p["self_attn.o_proj.weight"].T
        y = rms(x, p["post_attention_layernorm.weight"], eps)
        act = {"silu": F.silu, "relu": F.relu}[c["hidden_act"]]
        gate, up = (y @ p[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (act(gate) * up) @ p["mlp.down_proj.weight"].T
    head = "model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"
    return rms(x, w["model.norm.weight"], eps) @ w[head].T


def busy_model(config):
    """A model in which every weight matters."""
    model = Transformer(config, V, T)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0.5 if parameter.ndim == 1 else 0.0, 0.2, generator=generator)
    return model


@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_qwen3s_equations_on_the_export_give_the_models_logits(activation, tied, kv_heads):
    config = ModelConfig(
        dim=32, layers=2, heads=4, kv_heads=kv_heads, activation=activation, tied=tied
    )
    model = busy_model(config)
    tokens = torch.randint(0, V, (2, T), generator=torch.Generator().manual_seed(2))
    tensors, _ = read_back(encode_tensors(qwen3_tensors(model.state_dict(), config), {}))
    described = qwen3_config(config, V, T)
    with torch.no_grad():
        assert torch.allclose(qwen3(tensors, described, tokens), model(tokens), atol=2e-5)
    assert set(described) >= {"model_type", "intermediate_size", "max_position_embeddings"}
    assert ("lm_head.weight" in tensors) == (not tied)


def test_the_command_writes_a_finished_run_and_refuses_what_is_none(dataset, tiny, tmp_path):
    view = dataset.select("split == 'train'")
    valid = read_documents(dataset, "split == 'valid'", 400)
    record = train(view, valid, tiny(steps=2), tmp_path / "run", Reporter(quiet=True))
    place = ["--out", str(tmp_path / "hf")]
    result = CliRunner().invoke(export_command, [str(tmp_path / "run"), *place])
    assert result.exit_code == 0
    assert f"{record.bpb:.4f} bits per byte" in result.stdout
    tensors, metadata = read_back((tmp_path / "hf/model.safetensors").read_bytes())
    assert metadata["run_key"] == record.run_key
    assert json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"] == 19
    assert tensors["model.layers.0.self_attn.q_proj.weight"].shape == (16, 16)
    with pytest.raises(DatasetError, match=r"has no run\.json"):
        export_run(tmp_path, tmp_path / "hf")
    for path in (tmp_path / "run").glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(DatasetError, match="no checkpoint of step 2"):
        export_run(tmp_path / "run", tmp_path / "hf")


def installed(name):
    """Import a library that Assay does not need, or skip the test by its name."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_transformers_loads_the_export_and_gives_the_same_logits(
    activation, tied, kv_heads, tmp_path
):
    transformers = installed("transformers")
    config = ModelConfig(
        dim=32, layers=2, heads=4, kv_heads=kv_heads, activation=activation, tied=tied
    )
    model = busy_model(config)
    write_model(tmp_path, model.state_dict(), config, T)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())  # no key missing, left over or of another shape
    tokens = torch.randint(0, V, (2, T), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (theirs(tokens).logits - model(tokens)).abs().max() < 1e-5


def test_safetensors_reads_the_file():
    safetensors = installed("safetensors.torch")
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(7).bfloat16(), "c": torch.zeros(0, 2)}
    found = safetensors.load(encode_tensors(tensors, {"format": "pt"}))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
