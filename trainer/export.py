"""A finished run's model in the form that Hugging Face's `transformers` loads: a Qwen3 model.

Pre-norm blocks with RMSNorm, QK-norm before RoPE, grouped heads, no biases: with SwiGLU that is
Qwen3 (Yang et al. 2025) exactly. ReLU² fits too, since relu(Wx)² = relu(Wx) · (Wx) is a gated MLP
whose gate and value are one matrix: W is written twice, and `hidden_act` is "relu".
"""

from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from shards.atomic import write_atomic
from trainer.config import ModelConfig
from trainer.model import NORM_EPSILON
from trainer.records import RunRecord
from trainer.tensor_file import encode_tensors
from trainer.trained import load_trained

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def export_run(run: Path, out: Path) -> RunRecord:
    """Write `model.safetensors` and `config.json` of a finished run into the folder `out`.

    Raises:
        DatasetError: `run` is not the folder of a finished run, or its checkpoint is gone.
        CorruptError: the record or the checkpoint is not as it was written.
    """
    record, state = load_trained(run)
    origin = {"run_key": record.run_key, "dataset_id": record.dataset_id}
    length = record.config.sequence_length
    write_model(out, state, record.config.model, length, origin)
    return record


def write_model(
    out: Path,
    state: dict[str, Tensor],
    config: ModelConfig,
    length: int,
    origin: dict[str, str] | None = None,
) -> None:
    """Write a model's state as the two files; `origin` goes into the file's metadata."""
    tensors = qwen3_tensors(state, config)
    described = qwen3_config(config, len(tensors["model.embed_tokens.weight"]), length)
    # `transformers` asks for the framework that wrote the file.
    write_atomic(out / WEIGHTS, encode_tensors(tensors, {"format": "pt"} | (origin or {})))
    write_atomic(out / CONFIG, msgspec.json.format(msgspec.json.encode(described)) + b"\n")


def qwen3_tensors(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return a model's state under the names of `Qwen3ForCausalLM`, fp32, `[out, in]`."""
    tensors = {
        "model.embed_tokens.weight": state["embedding"],
        "model.norm.weight": state["norm.weight"],
    }
    if not config.tied:
        tensors["lm_head.weight"] = state["head"]
    for layer in range(config.layers):
        ours = {
            name.removeprefix(f"blocks.{layer}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"blocks.{layer}.")
        }
        theirs = _attention(ours) | _mlp(ours)
        tensors |= {f"model.layers.{layer}.{name}.weight": t for name, t in theirs.items()}
    return tensors


def _attention(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    if "attention.qkv" in ours:
        q, k, v = ours["attention.qkv"]
    else:
        q, (k, v) = ours["attention.q"], ours["attention.kv"]
    return {
        "input_layernorm": ours["attention_norm.weight"],
        "self_attn.q_proj": q,
        "self_attn.k_proj": k,
        "self_attn.v_proj": v,
        "self_attn.o_proj": ours["attention.out"],
        "self_attn.q_norm": ours["attention.q_norm.weight"],
        "self_attn.k_norm": ours["attention.k_norm.weight"],
    }


def _mlp(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    up = ours["mlp.up"]
    return {
        "post_attention_layernorm": ours["mlp_norm.weight"],
        "mlp.gate_proj": up[0],
        "mlp.up_proj": up[-1],  # ReLU²: the only one again
        "mlp.down_proj": ours["mlp.down"],
    }


def qwen3_config(config: ModelConfig, vocabulary: int, length: int) -> dict[str, Any]:
    """Return the `config.json` of a model that was trained on sequences of `length` tokens."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocabulary,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu" if config.activation == "swiglu" else "relu",
        "max_position_embeddings": length,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": config.rope_base,  # transformers 4; version 5 reads `rope_parameters`
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
    }
