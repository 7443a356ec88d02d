"""What a trained model has to beat: token models without context, and a general compressor.

All are in bits per byte on the same validation documents. The token models read what the run read,
since a comparison with one that read more would measure the budget and not the model. Nothing is
tuned: the discount follows from the training counts, never from the validation documents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.loader import IGNORE, Batches
from trainer.data import Documents
from trainer.records import Baselines

Tokens = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

JEFFREYS = 0.5
"""Pseudo-count of every token (Krichevsky & Trofimov 1981), so that none is impossible."""


@dataclass(frozen=True)
class Unigram:
    """p(w) = (c(w) + 1/2) / (N + V/2); `log_p: float64[V]` in nats."""

    log_p: Floats

    def nats(self, tokens: Tokens) -> Floats:
        """Return −ln p of each token, `float64[n]`."""
        return -self.log_p[tokens]


@dataclass(frozen=True)
class Bigram:
    """Interpolated Kneser–Ney of order two (Chen & Goodman 1999, eq. 21).

    p(w|v) = (max(c(vw) − D, 0) + D · N(v•) · q(w)) / c(v), where N(v•) is the number of distinct
    successors of v, q(w) the share of distinct predecessors of w among all distinct pairs (with a
    pseudo-count of 1/2), and D = n1 / (n1 + 2 n2) follows from the pairs seen once and twice (Ney,
    Essen & Kneser 1994). After a token never seen, p(w|v) = q(w).

    pairs: int64[p], distinct `v * V + w`, sorted; counts: int64[p].
    """

    vocabulary: int
    discount: float
    pairs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]
    successors: npt.NDArray[np.int64]
    continuation: Floats

    def nats(self, previous: Tokens, tokens: Tokens) -> Floats:
        """Return −ln p(tokens[i] | previous[i]), `float64[n]`."""
        pairs = previous.astype(np.int64) * self.vocabulary + tokens
        place = np.searchsorted(self.pairs, pairs)
        place[place == len(self.pairs)] = 0
        found = self.pairs[place] == pairs if len(self.pairs) else np.zeros(len(pairs), bool)
        count = np.where(found, self.counts[place], 0) if len(self.pairs) else np.zeros(len(pairs))
        seen = self.seen[previous]
        q = self.continuation[tokens]
        kept = np.maximum(count - self.discount, 0.0)
        p = (kept + self.discount * self.successors[previous] * q) / np.maximum(seen, 1)
        return -np.log(np.where(seen > 0, p, q))


def fit_unigram(tokens: Tokens, vocabulary: int) -> Unigram:
    """Count the tokens of an arm."""
    counts = np.bincount(tokens, minlength=vocabulary) + JEFFREYS
    return Unigram(np.log(counts / counts.sum()))


def fit_bigram(previous: Tokens, tokens: Tokens, vocabulary: int) -> Bigram:
    """Count the pairs of an arm; `previous[i]` precedes `tokens[i]` in its document."""
    pairs, counts = np.unique(previous.astype(np.int64) * vocabulary + tokens, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    # Without pairs seen twice the estimate is 1 or undefined; 1/2 keeps it a discount.
    discount = once / (once + 2 * twice) if once and twice else 0.5
    left, right = np.divmod(pairs, vocabulary)
    predecessors = np.bincount(right, minlength=vocabulary) + JEFFREYS
    return Bigram(
        vocabulary=vocabulary,
        discount=discount,
        pairs=pairs,
        counts=counts,
        seen=np.bincount(previous, minlength=vocabulary),
        successors=np.bincount(left, minlength=vocabulary),
        continuation=predecessors / predecessors.sum(),
    )


def fit_and_score(previous: Tokens, tokens: Tokens, valid: Documents, vocabulary: int) -> Baselines:
    """Fit both token models to (previous, token) pairs; return bpb on the validation documents.

    The first token of a validation document is predicted from EOS, as the trained model sees it.
    """
    unigram = fit_unigram(tokens, vocabulary)
    bigram = fit_bigram(previous, tokens, vocabulary)
    bits_of_nats = np.log(2) * valid.bytes.sum()
    return Baselines(
        unigram=float(unigram.nats(valid.tokens).sum() / bits_of_nats),
        bigram=float(bigram.nats(valid.previous(), valid.tokens).sum() / bits_of_nats),
    )


def pairs_read(loader: Batches, samples: int) -> tuple[Tokens, Tokens]:
    """Return the (previous, token) pairs that a run reads, each sample of a source once.

    Args:
        loader: a new loader of the run (rank 0 of 1); it is used up.
        samples: how many the run takes; later epochs add nothing.
    """
    wanted = min(samples, loader.first_pass)
    previous, tokens = [], []
    while wanted > 0:
        batch = loader.next()
        new = loader.epochs(batch.indices[:wanted]) == 0
        targets = batch.targets[:wanted][new]
        real = targets != IGNORE
        previous.append(batch.inputs[:wanted][new][real])
        tokens.append(targets[real])
        wanted -= len(batch.indices)
    return np.concatenate(previous), np.concatenate(tokens)


def zstd_bpb(valid: Documents) -> float | None:
    """Return bits per byte of the validation documents by the dataset's own zstd signal.

    None where the dataset carries no `zstd_bpb` column: a tokens dataset holds no text to compress.
    """
    if valid.zstd_bits is None:
        return None
    return float(valid.zstd_bits.sum() / valid.bytes.sum())
