"""Recall on edited copies: word 5-grams against smaller n-grams and containment.

    python -m benchmarks.dedup --edits

Each original has a copy for each rate of word edits (a third replaced, deleted and inserted, by
words of the same corpus), and one that stands unedited inside as much other text. A pair of
different origin that is found counts as foreign; none is wrong, since each is verified, but
they say how far a setting is from "copies". Beside it, where the corpora are there: the share of
real pairs (two revisions of a document, a text and its simplification, different documents on one
subject) that each mode joins.
"""

import random
import sys
from typing import Any, NamedTuple

import numpy as np

from benchmarks.corpus import CORPUS, Flat, cpu_seconds, documents, flat, records
from dedup.bands import banding
from dedup.config import NearConfig, Unit
from dedup.near import near_duplicates
from dedup.shingles import shingle_sets
from dedup.verify import verify_pairs

PAIRS = CORPUS.with_name("neardup_pairs.dev.jsonl.zst")
RATES = (0.05, 0.10, 0.20)
N_ORIGINALS = 1500


class Mode(NamedTuple):
    """One way to look for copies."""

    name: str
    ngram: int
    unit: Unit
    threshold: float
    num_perm: int = 128
    size_ratio: float = 0
    """Containment, down to this ratio of sizes; 0: Jaccard."""


MODES = (
    Mode("word-5 J ≥ 0.8", 5, "word", 0.8),
    Mode("word-5 J ≥ 0.5", 5, "word", 0.5),
    Mode("word-3 J ≥ 0.3", 3, "word", 0.3, 256),
    Mode("word-2 J ≥ 0.4", 2, "word", 0.4, 256),
    Mode("char-9 J ≥ 0.3", 9, "char", 0.3, 256),
    Mode("word-5 C ≥ 0.8, sizes to 1 : 2", 5, "word", 0.8, 128, 0.5),
    Mode("word-3 C ≥ 0.5, sizes to 1 : 2", 3, "word", 0.5, 256, 0.5),
    Mode("word-2 C ≥ 0.6, sizes to 1 : 2", 2, "word", 0.6, 256, 0.5),
)


def edits(text: str) -> list[dict[str, Any]]:
    """Measure every mode on the same documents, and print a table."""
    texts, kind = corpus(text)
    batch = flat(texts)
    pairs = list(records(PAIRS)) if PAIRS.exists() else []
    rows = []
    for mode in MODES:
        row = {**measure(mode, batch, kind), **joined(mode, pairs)}
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr)
    return rows


def corpus(text: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return documents and, of each, (origin, kind): 0 original, 1–3 `RATES`, 4 wrapped."""
    rng = random.Random(11)
    originals = documents(text, N_ORIGINALS, seed=4, copies=0)
    foreign = documents(text, N_ORIGINALS, seed=5, copies=0)
    vocabulary = text[:1_000_000].split()
    texts, kind = [], []
    for origin, (original, other) in enumerate(zip(originals, foreign, strict=True)):
        copies = [edited_words(original, rate, vocabulary, rng) for rate in RATES]
        cut = rng.randrange(len(other))
        wrapped = f"{other[:cut]}\n{original}\n{other[cut:]}"
        texts += [original, *copies, wrapped]
        kind += [(origin, number) for number in range(len(RATES) + 2)]
    return texts, np.array(kind)


def edited_words(text: str, rate: float, vocabulary: list[str], rng: random.Random) -> str:
    """Edit a share of the words: replace, delete or insert one at each place drawn."""
    words = text.split()
    for place in rng.sample(range(len(words)), round(rate * len(words))):
        new = rng.choice(vocabulary)
        words[place] = rng.choice((new, "", f"{words[place]} {new}"))
    return " ".join(words)


def measure(mode: Mode, batch: Flat, kind: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return recall of (original, copy) by kind of copy, foreign pairs and speed."""
    config = NearConfig(
        threshold=mode.threshold,
        measure="containment" if mode.size_ratio else "jaccard",
        size_ratio=mode.size_ratio or 1,
        ngram=mode.ngram,
        unit=mode.unit,
        num_perm=mode.num_perm,
    )
    bands, rows = banding(config)
    seconds = cpu_seconds(lambda: near_duplicates(*batch, config), 1)
    edges = near_duplicates(*batch, config)
    left, right = kind[edges.left], kind[edges.right]
    same = left[:, 0] == right[:, 0]
    of_original = same & (np.minimum(left[:, 1], right[:, 1]) == 0)
    found = np.bincount(np.maximum(left[:, 1], right[:, 1])[of_original], minlength=5)[1:]
    names = [*(f"{rate:.0%}" for rate in RATES), "wrapped"]
    return {
        "mode": mode.name,
        "bands": f"{bands} x {rows}",
        **dict(zip(names, np.round(found / N_ORIGINALS, 3).tolist(), strict=True)),
        "foreign_pairs": int((~same).sum()),
        "docs_per_cpu_s": round(kind.shape[0] / seconds),
    }


def joined(mode: Mode, pairs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of real pairs of each kind that are at or above the mode's threshold."""
    texts = [text for pair in pairs for text in (pair["text_a"], pair["text_b"])]
    left = np.arange(0, len(texts), 2)
    sets, bounds = shingle_sets(*flat(texts), mode.ngram, mode.unit)
    found = verify_pairs(sets, bounds, left, left + 1, containment=mode.size_ratio > 0)
    above = found >= np.float32(mode.threshold)
    kinds = np.array([pair["kind"] for pair in pairs])
    return {kind: round(float(above[kinds == kind].mean()), 3) for kind in np.unique(kinds)}
