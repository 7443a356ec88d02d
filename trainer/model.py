"""A decoder-only transformer, read top to bottom: sizes, parts, model.

Pre-norm blocks (RMSNorm, Zhang & Sennrich 2019), rotary positions (RoPE, Su et al. 2021),
QK-norm (Dehghani et al. 2023), ReLU² (So et al. 2021) or SwiGLU (Shazeer 2020), no biases. With
SwiGLU the function is that of a Qwen3 block, so its weights can be exported to that architecture.

Under autocast products run in bf16; norms, rotation, the residual stream and the loss stay fp32.
`Block.forward` and `Transformer.hidden` have no break in their graph for `torch.compile`.

Shape suffixes: B batch, T positions, D width, H heads, K head dimensions, F hidden units,
V vocabulary. A parameter with three dimensions is a stack of matrices (Q, K, V; gate and up) that
one product applies at once and that Muon treats one by one.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.config import ModelConfig
from trainer.documents import Mask, attend, document_mask
from trainer.heads import split_heads
from trainer.loss import mean_nats_of, nats_of
from trainer.ops import by_kernel, linear, relu_squared, rms_norm, rotate

NORM_EPSILON = 1e-6


def rope_tables(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin `float32[length, head_dim / 2]` of position × base^(−2i / head_dim)."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


class Norm(nn.Module):
    """RMSNorm with a gain for each of `size` values."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return rms_norm(x, self.weight, NORM_EPSILON)


class Attention(nn.Module):
    """Causal attention with normalised, rotated queries and keys.

    With as many heads of keys as of queries, Q, K and V are one stack; with fewer, K and V are.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.grouped = config.kv_dim != config.dim
        if self.grouped:
            self.q = nn.Parameter(torch.empty(config.dim, config.dim))
            self.kv = nn.Parameter(torch.empty(2, config.kv_dim, config.dim))
        else:
            self.qkv = nn.Parameter(torch.empty(3, config.dim, config.dim))
        self.out = nn.Parameter(torch.empty(config.dim, config.dim))
        self.q_norm = Norm(config.head_dim)
        self.k_norm = Norm(config.head_dim)

    def forward(
        self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, mask: Mask | None = None
    ) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`; position t sees positions 0…t, or what `mask` says."""
        B, T, D = x_BTD.shape
        if by_kernel(x_BTD) and not self.grouped:
            gains_2K = torch.stack((self.q_norm.weight, self.k_norm.weight))
            heads = split_heads(
                linear(x_BTD, self.qkv.flatten(0, 1)), gains_2K, cos_TK, sin_TK, NORM_EPSILON
            )
            q_BHTK, k_BHTK, v_BHTK = (y_BTHK.transpose(1, 2) for y_BTHK in heads)
        else:
            q_BHTK, k_BHTK, v_BHTK = self._split(x_BTD)
            q_BHTK = rotate(self.q_norm(q_BHTK), cos_TK, sin_TK).to(v_BHTK.dtype)
            k_BHTK = rotate(self.k_norm(k_BHTK), cos_TK, sin_TK).to(v_BHTK.dtype)
        y_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, mask, grouped=self.grouped)
        return linear(y_BHTK.transpose(1, 2).reshape(B, T, D), self.out)

    def _split(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = x_BTD.shape
        if self.grouped:
            q_BTHK = linear(x_BTD, self.q).view(B, T, self.heads, self.head_dim)
            kv = linear(x_BTD, self.kv.flatten(0, 1)).view(B, T, 2, -1, self.head_dim)
            k_BTHK, v_BTHK = kv.unbind(2)
        else:
            qkv = linear(x_BTD, self.qkv.flatten(0, 1))
            q_BTHK, k_BTHK, v_BTHK = qkv.view(B, T, 3, self.heads, self.head_dim).unbind(2)
        return q_BTHK.transpose(1, 2), k_BTHK.transpose(1, 2), v_BTHK.transpose(1, 2)


class MLP(nn.Module):
    """ReLU² (two matrices) or SwiGLU (three)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.up = nn.Parameter(torch.empty(2 if self.gated else 1, config.hidden, config.dim))
        self.down = nn.Parameter(torch.empty(config.dim, config.hidden))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`, position by position."""
        h_BTF: Tensor = linear(x_BTD, self.up.flatten(0, 1))
        if self.gated:
            gate, value = h_BTF.chunk(2, dim=-1)
            h_BTF = F.silu(gate) * value
        else:
            h_BTF = relu_squared(h_BTF)
        return linear(h_BTF, self.down)


class Block(nn.Module):
    """Attention and MLP, each on a normalised input and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.dim)
        self.attention = Attention(config)
        self.mlp_norm = Norm(config.dim)
        self.mlp = MLP(config)

    def forward(
        self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, mask: Mask | None = None
    ) -> Tensor:
        """Map `[B, T, D]` to `[B, T, D]`."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TK, sin_TK, mask)
        y_BTD: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return y_BTD


class Transformer(nn.Module):
    """The model. Made with `Transformer(config, vocabulary, length)`, then `initialise(seed)`.

    `length` is the longest sequence; `forward` takes shorter ones. With `eos`, the id of the token
    that ends a document, no position sees another document. With `recompute` a block keeps only its
    input for the backward pass and is computed twice (Chen et al. 2016): a third more products for
    a fraction of the memory.

    A model larger than one machine's memory is made on the meta device, cut, given memory and then
    initialised; weights are drawn and handed out one parameter at a time:

        with torch.device("meta"):
            model = Transformer(config, vocabulary, length)
        model.to_empty(device="cuda")
        model.initialise(seed)
    """

    cos_TK: Tensor  # noqa: N815 (shape suffixes)
    sin_TK: Tensor  # noqa: N815

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: int,
        length: int,
        *,
        eos: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.eos, self.recompute = config, eos, recompute
        self.embedding = nn.Parameter(torch.empty(vocabulary, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.dim)
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
        from trainer.sharded import cut_like  # imports this module

        generator = torch.Generator().manual_seed(seed)
        tables = rope_tables(len(self.cos_TK), self.config.head_dim, self.config.rope_base)
        for buffer, table in zip((self.cos_TK, self.sin_TK), tables, strict=True):
            buffer.copy_(table)  # a model from the meta device has none yet

        def normal(parameter: Tensor, std: float) -> None:
            # Drawn on the CPU whatever the device, so that the same seed means the same weights.
            values = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
            parameter.data.copy_(cut_like(values, parameter))

        normal(self.embedding, 0.02 if self.head is None else 1.0)
        for module in self.modules():
            if isinstance(module, Attention):
                readers = (module.q, module.kv) if module.grouped else (module.qkv,)
                for reader in readers:
                    normal(reader, 1 / math.sqrt(reader.shape[-1]))
                nn.init.zeros_(module.out)
            elif isinstance(module, MLP):
                normal(module.up, 1 / math.sqrt(module.up.shape[-1]))
                nn.init.zeros_(module.down)
            elif isinstance(module, Norm):
                nn.init.ones_(module.weight)
        if self.head is not None:
            nn.init.zeros_(self.head)

    @property
    def output(self) -> Tensor:
        """The output layer `[V, D]`: the embedding where the two are tied."""
        return self.embedding if self.head is None else self.head

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Map token ids `int64[B, T]` to what the output layer reads, `[B, T, D]`."""
        T = tokens_BT.shape[1]
        cos_TK, sin_TK = self.cos_TK[:T], self.sin_TK[:T]
        mask = None
        if self.eos is not None:
            mask = document_mask(tokens_BT, self.eos, self.config.head_dim)
        x_BTD = F.embedding(tokens_BT, self.embedding)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, cos_TK, sin_TK, mask, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, cos_TK, sin_TK, mask)
        y_BTD: Tensor = self.norm(x_BTD)
        return y_BTD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Map token ids `int64[B, T]` to logits `[B, T, V]`."""
        return linear(self.hidden(tokens_BT), self.output)


def token_nats(model: Transformer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return −ln p(target) per position, `float32[B, T]`; 0 where the target is `IGNORED`.

    Has no gradient. Only positions with a target go through the output layer.
    """
    x_ND = model.hidden(inputs_BT).flatten(0, 1)
    return nats_of(x_ND, model.output, targets_BT.flatten()).view_as(targets_BT)


def mean_nats(
    model: Transformer, inputs_BT: Tensor, targets_BT: Tensor, count: int | Tensor | None = None
) -> Tensor:
    """Return the training loss: mean nats per token over targets that are not `IGNORED`.

    With `count`, the sum over `count`: a microbatch's part of the mean over its batch.
    """
    x_ND = model.hidden(inputs_BT).flatten(0, 1)
    return mean_nats_of(x_ND, model.output, targets_BT.flatten(), count)
