"""Attention that ends at the border of a document, for rows that hold several.

A document begins with the EOS of the one before it: that is what its first token is predicted from,
here as in validation (`trainer/evaluate.py`). A position sees itself and what came before it in its
own document. On a GPU the mask goes through FlexAttention (Dong et al. 2024), which skips blocks
that nothing in sees; elsewhere it is a matrix for scaled dot-product attention. Rotary positions
need no change, since they act by distance.

Shape suffixes as in `trainer/model.py`.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from trainer.device import compiled_by_rule

Mask = Tensor | BlockMask
"""`bool[B, 1, T, T]`, true where a query (row) sees a key (column), or the same in blocks."""


def document_numbers(tokens_BT: Tensor, eos: int) -> Tensor:
    """Number the documents of each row from 0 (`int32[B, T]`); an EOS begins the next one."""
    return (tokens_BT == eos).cumsum(dim=1, dtype=torch.int32)


FLEX_HEAD_DIM = 16
"""Values of a head below which FlexAttention does not compile: "embedding dimension of the query,
key, and value must be at least 16" (torch/_inductor/kernel/flex)."""


def document_mask(tokens_BT: Tensor, eos: int, head_dim: int) -> Mask:
    """Return the causal mask of the documents in `int64[B, T]`, in the form that attention takes.

    It is a `BlockMask` on a GPU, where heads are wide enough for it, and a tensor elsewhere.
    """
    numbers_BT = document_numbers(tokens_BT, eos)
    in_blocks = tokens_BT.is_cuda and head_dim >= FLEX_HEAD_DIM
    return block_mask(numbers_BT) if in_blocks else dense_mask(numbers_BT)


def dense_mask(numbers_BT: Tensor) -> Tensor:
    """Return `bool[B, 1, T, T]`: same document, and not later."""
    same_BTT = numbers_BT[:, :, None] == numbers_BT[:, None, :]
    return same_BTT.tril()[:, None]


def block_mask(numbers_BT: Tensor) -> BlockMask:
    """Return the same mask for FlexAttention, which works in blocks of 128 positions."""
    B, T = numbers_BT.shape

    def sees(b: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (numbers_BT[b, query] == numbers_BT[b, key])

    return create_block_mask(sees, B, None, T, T, device=numbers_BT.device)


def attend(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Mask | None, *, grouped: bool
) -> Tensor:
    """Return the heads' attention `[B, H, T, K]`; without a mask every position sees all before it.

    With `grouped`, keys and values have fewer heads than queries (GQA).
    """
    if isinstance(mask, BlockMask):
        alone = q_BHTK.is_cuda and not torch.compiler.is_compiling()
        flex = _flex(dynamic=not torch.is_grad_enabled()) if alone else flex_attention
        y_BHTK: Tensor = flex(q_BHTK, k_BHTK, v_BHTK, block_mask=mask, enable_gqa=grouped)
        return y_BHTK
    return F.scaled_dot_product_attention(
        q_BHTK, k_BHTK, v_BHTK, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )


@functools.cache
def _flex(*, dynamic: bool) -> Any:
    """Compile FlexAttention, which otherwise makes all scores; once a process, when first used.

    Training has one shape. For validation, with `dynamic`, there is one kernel for all shapes: with
    one for each, which of them a shape gets could follow from the shapes before it.
    """
    return compiled_by_rule(flex_attention, dynamic=dynamic)
