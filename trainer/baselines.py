"""What a trained model has to beat: token models without context, and a general compressor.

All are in bits per byte on the same validation documents. Nothing is tuned: the discount follows
from the training counts, so the validation documents are never looked at twice.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from trainer.data import Documents

Tokens = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

JEFFREYS = 0.5
"""Pseudo-count of every token (Krichevsky & Trofimov 1981), so that none is impossible."""

ZSTD_LEVEL = 19


class Baselines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bits per byte of an arm's own token models on the validation documents."""

    unigram: float
    bigram: float


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
    pairs, counts = np.unique(
        previous.astype(np.int64) * vocabulary + tokens, return_counts=True
    )
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


def token_baselines(training: Documents, valid: Documents, vocabulary: int) -> Baselines:
    """Fit both token models to an arm's documents; return their bpb on the validation documents.

    The first token of a document is predicted from EOS, as the trained model sees it.
    """
    unigram = fit_unigram(training.tokens, vocabulary)
    bigram = fit_bigram(training.previous(), training.tokens, vocabulary)
    bits = np.log(2) * valid.bytes.sum()
    return Baselines(
        unigram=float(unigram.nats(valid.tokens).sum() / bits),
        bigram=float(bigram.nats(valid.previous(), valid.tokens).sum() / bits),
    )


def zstd_bpb(texts: list[bytes]) -> float:
    """Compress each text on its own at level 19, without checksum; return bits per byte of all."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False)
    size = sum(len(compressor.compress(text)) for text in texts)
    return 8 * size / max(1, sum(map(len, texts)))
