"""Parameters, FLOPs and memory of a model, by arithmetic alone (light: imports no torch)."""

from trainer.config import ModelConfig

CHUNK_LOGITS_GPU = 2**27
"""Logits that are in a GPU's memory at once (`trainer/loss.py`), 512 MiB in fp32: there few large
products count, and no cache."""

LOGIT_BYTES = 12
"""Bytes for each of them in bf16: products (2) and their fp32 copy (4) of a chunk, beside that copy
(4) and the probabilities (2) of the chunk before it."""

MUON_VALUES = 1 << 28
"""Values (1 GiB in fp32) that go through Muon's Newton–Schulz at a time."""


def loss_bytes(positions: int, vocabulary: int) -> int:
    """Return what the loss of so many positions takes on a GPU beside its gradients."""
    return LOGIT_BYTES * min(positions * vocabulary, CHUNK_LOGITS_GPU)


def matrices_per_layer(config: ModelConfig) -> int:
    """Return the weights of one layer's matrix products: Q, K, V, out and the MLP."""
    attention = 2 * config.dim**2 + 2 * config.dim * config.kv_dim
    mlp = 3 if config.activation == "swiglu" else 2
    return attention + mlp * config.dim * config.hidden


def parameter_count(config: ModelConfig, vocabulary: int) -> int:
    """Return the number of parameters; equal to what `Transformer` allocates."""
    embeddings = vocabulary * config.dim * (1 if config.tied else 2)
    gains = config.layers * (2 * config.dim + 2 * config.head_dim) + config.dim
    return embeddings + gains + config.layers * matrices_per_layer(config)


def flops_per_token(config: ModelConfig, vocabulary: int, sequence_length: int) -> int:
    """Return the floating-point operations of training on one token, forward and backward.

    6·N + 12·L·D·T (Chowdhery et al. 2022, PaLM, appendix B), where N counts the weights of every
    matrix product: hidden matrices and the output layer, not the embedding look-up. By that
    convention attention counts as if it were not causal.
    """
    products = config.layers * matrices_per_layer(config) + vocabulary * config.dim
    return 6 * products + 12 * config.layers * config.dim * sequence_length


def memory_bytes(
    config: ModelConfig, vocabulary: int, sequence_length: int, batch_size: int
) -> int:
    """Estimate the peak bytes of a training step in fp32 without recomputation.

    16 bytes a parameter (weight, gradient, two moments: an upper bound, Muon keeps one) plus the
    activations that the backward pass reads: about 10 D + 3 F values per layer and position. The
    logits are never all there (`trainer/loss.py`).
    """
    positions = batch_size * sequence_length
    hidden = config.hidden * (2 if config.activation == "swiglu" else 1)
    activations = positions * config.layers * (10 * config.dim + 3 * hidden)
    return 16 * parameter_count(config, vocabulary) + 4 * activations
