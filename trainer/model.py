"""A decoder-only transformer, read top to bottom: sizes, parts, model.

Pre-norm blocks (RMSNorm, Zhang & Sennrich 2019), rotary positions (RoPE, Su et al. 2021),
QK-norm (Dehghani et al. 2023), ReLU² (So et al. 2021) or SwiGLU (Shazeer 2020), no biases. With
SwiGLU the function is that of a Qwen3 block, so its weights can be exported to that architecture.

Shape suffixes: B batch, T positions, D width, H heads, K head dimensions, F hidden units,
V vocabulary. A parameter with three dimensions is a stack of matrices (Q, K, V; gate and up) that
one product applies at once and that Muon treats one by one.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from trainer.config import ModelConfig

IGNORED = -1
"""Target of a position that has no loss (padding)."""

NORM_EPSILON = 1e-6


def parameter_count(config: ModelConfig, vocabulary: int) -> int:
    """Return the number of parameters; equal to what `Transformer` allocates."""
    embeddings = vocabulary * config.dim * (1 if config.tied else 2)
    gains = config.layers * (2 * config.dim + 2 * config.head_dim) + config.dim
    return embeddings + gains + config.layers * _matrices_per_layer(config)


def flops_per_token(config: ModelConfig, vocabulary: int, sequence_length: int) -> int:
    """Return the floating-point operations of training on one token, forward and backward.

    6·N + 12·L·D·T (Chowdhery et al. 2022, PaLM, appendix B), where N counts the weights of every
    matrix product: hidden matrices and the output layer, not the embedding look-up. By that
    convention attention counts as if it were not causal.
    """
    products = config.layers * _matrices_per_layer(config) + vocabulary * config.dim
    return 6 * products + 12 * config.layers * config.dim * sequence_length


def _matrices_per_layer(config: ModelConfig) -> int:
    mlp = 3 if config.activation == "swiglu" else 2
    return 4 * config.dim**2 + mlp * config.dim * config.hidden


def memory_bytes(
    config: ModelConfig, vocabulary: int, sequence_length: int, batch_size: int
) -> int:
    """Estimate the peak bytes of a training step in fp32 without recomputation.

    16 bytes a parameter (weight, gradient, two moments: an upper bound, Muon keeps one) plus the
    activations that the backward pass reads: about 10 D + 3 F values per layer and position, and
    three copies of the logits (logits, log-probabilities, gradient).
    """
    positions = batch_size * sequence_length
    hidden = config.hidden * (2 if config.activation == "swiglu" else 1)
    activations = positions * (config.layers * (10 * config.dim + 3 * hidden) + 3 * vocabulary)
    return 16 * parameter_count(config, vocabulary) + 4 * activations


def rope_tables(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin `float32[length, head_dim / 2]` of position × base^(−2i / head_dim)."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate the pair (i, i + K/2) of every head by its position's angle (RoPE, eq. 34)."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK), dim=-1)


class Attention(nn.Module):
    """Causal multi-head attention with normalised, rotated queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Parameter(torch.empty(3, config.dim, config.dim))
        self.out = nn.Parameter(torch.empty(config.dim, config.dim))
        self.q_norm = nn.RMSNorm(config.head_dim, eps=NORM_EPSILON)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=NORM_EPSILON)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`; position t sees positions 0…t."""
        B, T, D = x_BTD.shape
        qkv = F.linear(x_BTD, self.qkv.flatten(0, 1)).view(B, T, 3, self.heads, D // self.heads)
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4)
        q_BHTK = rotate(self.q_norm(q_BHTK), cos_TK, sin_TK)
        k_BHTK = rotate(self.k_norm(k_BHTK), cos_TK, sin_TK)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        return F.linear(y_BHTK.transpose(1, 2).reshape(B, T, D), self.out)


class MLP(nn.Module):
    """ReLU² (two matrices) or SwiGLU (three)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.up = nn.Parameter(torch.empty(2 if self.gated else 1, config.hidden, config.dim))
        self.down = nn.Parameter(torch.empty(config.dim, config.hidden))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, position by position."""
        h_BTF: Tensor = F.linear(x_BTD, self.up.flatten(0, 1))
        if self.gated:
            gate, value = h_BTF.chunk(2, dim=-1)
            h_BTF = F.silu(gate) * value
        else:
            h_BTF = F.relu(h_BTF).square()
        return F.linear(h_BTF, self.down)


class Block(nn.Module):
    """Attention and MLP, each on a normalised input and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=NORM_EPSILON)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.dim, eps=NORM_EPSILON)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TK, sin_TK)
        y_BTD: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return y_BTD


class Transformer(nn.Module):
    """The model. Made with `Transformer(config, vocabulary, length)`, then `initialise(seed)`.

    `length` is the longest sequence; `forward` takes shorter ones.
    """

    cos_TK: Tensor  # noqa: N815 (shape suffixes)
    sin_TK: Tensor  # noqa: N815

    def __init__(self, config: ModelConfig, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=NORM_EPSILON)
        self.head = None if config.tied else nn.Parameter(torch.empty(vocabulary, config.dim))
        cos_TK, sin_TK = rope_tables(length, config.head_dim, config.rope_base)
        self.register_buffer("cos_TK", cos_TK, persistent=False)
        self.register_buffer("sin_TK", sin_TK, persistent=False)

    def initialise(self, seed: int) -> None:
        """Fill the weights from their own generator, so that nothing else can shift them.

        Hidden matrices: N(0, 1/fan_in) (LeCun et al. 1998), which keeps the variance of a signal.
        Matrices that write to the residual stream, and an untied head: zero, so that every block
        starts as the identity (Zhang et al. 2019, Fixup; Yang et al. 2022, µP, appendix D.2) and
        the first loss is exactly ln V. Embedding: N(0, 1), the scale at which blocks write, or
        N(0, 0.02²) where it is also the head (Radford et al. 2019). Gains: one.
        """
        generator = torch.Generator().manual_seed(seed)

        def normal(parameter: Tensor, std: float) -> None:
            # Drawn on the CPU whatever the device, so that the same seed means the same weights.
            values = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
            parameter.data.copy_(values)

        normal(self.embedding, 0.02 if self.head is None else 1.0)
        for module in self.modules():
            if isinstance(module, Attention):
                normal(module.qkv, 1 / math.sqrt(module.qkv.shape[-1]))
                nn.init.zeros_(module.out)
            elif isinstance(module, MLP):
                normal(module.up, 1 / math.sqrt(module.up.shape[-1]))
                nn.init.zeros_(module.down)
        if self.head is not None:
            nn.init.zeros_(self.head)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Map token ids `int64[B, T]` to logits `[B, T, V]`."""
        T = tokens_BT.shape[1]
        cos_TK, sin_TK = self.cos_TK[:T], self.sin_TK[:T]
        x_BTD = F.embedding(tokens_BT, self.embedding)
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_TK, sin_TK)
        return F.linear(self.norm(x_BTD), self.embedding if self.head is None else self.head)


def token_nats(model: nn.Module, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return −ln p(target) per position, `float32[B, T]`; 0 where the target is `IGNORED`."""
    logits_BTV = model(inputs_BT)
    nats = F.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return nats.view_as(targets_BT)


def mean_nats(model: nn.Module, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the training loss: mean nats per token over targets that are not `IGNORED`."""
    logits_BTV = model(inputs_BT)
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED)
