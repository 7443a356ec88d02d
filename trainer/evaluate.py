"""Validation in bits per byte: Σ nats over every token, EOS included / (ln 2 · raw UTF-8 bytes).

Bits per byte do not depend on the tokenizer. Every document stands alone: its first token is
predicted from EOS, which is what precedes a document in the training stream. A document longer
than the context T is read in windows of T inputs. The first window scores all its targets, each
later one starts 3T/4 further on and scores what is new, so that past the first window every token
has between T/4 and T tokens of context. Measured on a finished run of the demo: 2.1839 bits per
byte; steps of T/2 gave 2.1829 at 1.3 times the cost, windows side by side 2.2007 at 0.85 times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainer.data import Documents
from trainer.loss import IGNORED
from trainer.model import Transformer, token_nats
from trainer.ranks import ALONE, Ranks

Ints = npt.NDArray[np.int64]
BATCH_TOKENS = 1024
"""Positions in one forward pass on a CPU: few enough for the cache. Measured on the demo's model:
21 µs a position through the blocks with 1024, 27 with 4096 and 32 with 8192."""

BATCH_TOKENS_GPU = 1 << 14
"""The same on a GPU, which needs thousands of rows to be busy: 128 tiles of 128, about one for each
multiprocessor of an A100 or H100. No gradient is kept, so the widest layer of a model of 8 G
parameters takes 2 GiB. Not measured."""

HEED_ROUNDS = 8
"""Batches of each rank between two calls of `heed`, for which ranks wait for each other: with one
after each, validation by 2 ranks on 2 busy cores took 4 to 14 % longer."""


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
    stride = max(1, 3 * length // 4)
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
    model: Transformer,
    documents: Documents,
    length: int,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    heed: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score every token of every document with contexts of at most `length` tokens.

    Windows go through the model sorted by length, so that little is spent on padding. Ranks take
    batches by turns; the result is the same, bit for bit, on all of them and for any number. It
    is also that of other sizes of batches, up to the rounding of products.

    `heed` is called by all ranks between the same batches, and at first: it may raise, to stop.
    """
    most = batch_tokens(device)
    cut = windows(documents.offsets, length)
    cut = cut[np.argsort(cut[:, 2] - cut[:, 1], kind="stable")]
    previous = documents.previous()
    scores = np.zeros(len(cut), np.float64)
    every = 1 if ranks.world_size == 1 else HEED_ROUNDS * ranks.world_size
    start, number = 0, 0
    while start < len(cut):
        end = start + _rows_that_fit(cut[start:, 2] - cut[start:, 1], most)
        if number % every == 0:
            heed()
        if number % ranks.world_size == ranks.rank:
            inputs, targets = _pad(cut[start:end], previous, documents.tokens)
            found = token_nats(model, inputs.to(device), targets.to(device))
            scores[start:end] = found.double().sum(dim=1).cpu().numpy()
        start, number = end, number + 1
    if ranks.world_size > 1:  # each window has one score, and 0 from all other ranks
        scores = np.sum(ranks.gather(scores.tolist()), axis=0)
    nats = np.zeros(len(documents), np.float64)
    np.add.at(nats, cut[:, 0], scores)
    return Evaluation(nats / np.log(2), documents.bytes, documents.source, documents.sources)


def batch_tokens(device: torch.device | str) -> int:
    """Return how many positions, padding included, go through the model at a time."""
    return BATCH_TOKENS_GPU if torch.device(device).type == "cuda" else BATCH_TOKENS


def _rows_that_fit(lengths: Ints, most: int) -> int:
    """Return how many of the ascending `lengths` make a padded batch of at most `most` positions.

    One at least.
    """
    candidates = lengths[:most]
    padded = candidates * np.arange(1, len(candidates) + 1)
    return max(1, int(np.searchsorted(padded, most, side="right")))


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
