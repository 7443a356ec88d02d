"""Validation in bits per byte: Σ nats over every token, EOS included / (ln 2 · raw UTF-8 bytes).

Bits per byte do not depend on the tokenizer. Every document stands alone: its first token is
predicted from EOS, which is what precedes a document in the training stream. A document longer
than the context T is read in windows of T inputs. The first window scores all its targets, each
later one starts T/2 further on and scores its second half, so that past the first window every
token has between T/2 and T tokens of context, at about twice the cost of windows side by side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainer.data import Documents
from trainer.model import IGNORED, token_nats

Ints = npt.NDArray[np.int64]
BATCH_TOKENS = 8192
"""Positions in one forward pass: large enough for full speed, small enough for the logits."""


@dataclass(frozen=True)
class Evaluation:
    """What a model needs for each document of a selection.

    bits: float64[n]; bytes: int64[n], raw UTF-8 bytes.
    """

    bits: npt.NDArray[np.float64]
    bytes: Ints
    source: Ints
    sources: tuple[str, ...]

    @property
    def bpb(self) -> float:
        """Bits per byte of all documents together."""
        return float(self.bits.sum() / self.bytes.sum())

    def by_source(self) -> dict[str, float]:
        """Return bits per byte of each source that has a document."""
        bits = np.bincount(self.source, self.bits, minlength=len(self.sources))
        sizes = np.bincount(self.source, self.bytes, minlength=len(self.sources))
        return {name: float(bits[i] / sizes[i]) for i, name in enumerate(self.sources) if sizes[i]}


def windows(offsets: Ints, length: int) -> Ints:
    """Cut documents into windows: `int64[w, 4]` of document, first token, end, first scored.

    Tokens are places in the flat stream; each token is scored in exactly one window.
    """
    stride = max(1, length // 2)
    sizes = np.diff(offsets)
    counts = 1 + np.maximum(0, -(-(sizes - length) // stride))
    document = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = offsets[document] + number * stride
    end = np.minimum(first + length, offsets[document + 1])
    scored = np.where(number == 0, first, first - stride + length)
    return np.stack([document, first, end, scored], axis=1).astype(np.int64)


@torch.no_grad()
def evaluate(
    model: nn.Module, documents: Documents, length: int, device: torch.device | str = "cpu"
) -> Evaluation:
    """Score every token of every document with contexts of at most `length` tokens.

    Windows go through the model sorted by length, so that little is spent on padding.
    """
    cut = windows(documents.offsets, length)
    cut = cut[np.argsort(cut[:, 2] - cut[:, 1], kind="stable")]
    previous = documents.previous()
    nats = np.zeros(len(documents), np.float64)
    start = 0
    while start < len(cut):
        rows = _rows_that_fit(cut[start:, 2] - cut[start:, 1])
        batch = cut[start : start + rows]
        inputs, targets = _pad(batch, previous, documents.tokens)
        scores = token_nats(model, inputs.to(device), targets.to(device))
        np.add.at(nats, batch[:, 0], scores.double().sum(dim=1).cpu().numpy())
        start += rows
    return Evaluation(nats / np.log(2), documents.bytes, documents.source, documents.sources)


def _rows_that_fit(lengths: Ints) -> int:
    """Return how many of the ascending `lengths` make a padded batch of ≤ BATCH_TOKENS."""
    candidates = lengths[:BATCH_TOKENS]
    padded = candidates * np.arange(1, len(candidates) + 1)
    return max(1, int(np.searchsorted(padded, BATCH_TOKENS, side="right")))


def _pad(
    batch: Ints,
    previous: npt.NDArray[np.unsignedinteger[Any]],
    tokens: npt.NDArray[np.unsignedinteger[Any]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets `int64[b, t]`; padding and unscored targets are IGNORED."""
    width = int((batch[:, 2] - batch[:, 1]).max())
    place = batch[:, 1, np.newaxis] + np.arange(width)
    real = place < batch[:, 2, np.newaxis]
    place = np.where(real, place, batch[:, 1, np.newaxis])
    scored = real & (place >= batch[:, 3, np.newaxis])
    inputs = previous[place].astype(np.int64)
    targets = np.where(scored, tokens[place].astype(np.int64), IGNORED)
    return torch.from_numpy(inputs), torch.from_numpy(targets)
