"""Clusters of the development corpus against its truth, and every disagreement by its class.

    python -m benchmarks.dedup_clusters

The truth's clusters are components of pairs at Jaccard ≥ 0.7 that somebody else's program made.
It is described as of word 5-grams; `fit` shows of which n-grams it really is, on the components
in which a single pair of different sets decides. Needs the corpora beside the repository.
"""

import json
import re
import sys
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.corpus import CORPUS, Flat, flat, records
from dedup.components import connected_components
from dedup.config import NearConfig, Unit
from dedup.keep import Bool
from dedup.near import Edges, near_duplicates
from dedup.shingles import shingle_sets
from dedup.verify import Float32, verify_pairs
from dedup.words import Int64

THRESHOLD = 0.7
UNSPACED = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
SETTINGS: tuple[tuple[Unit, int], ...] = (("space", 6), ("space", 5), ("word", 6), ("word", 5))


class Corpus(NamedTuple):
    ids: list[str]
    batch: Flat
    truth: Int64
    """int64[n], the cluster of each document, named by its first document."""
    group: list[str]
    unspaced: Bool
    """bool[n], one character in 100 or more is of a script without spaces (Han, kana, Thai …)."""


def main() -> None:
    corpus = read()
    base = find(corpus, "space", 6)
    rows = [row(corpus, unit, ngram, base) for unit, ngram in SETTINGS]
    result = {"settings": rows, "fit": fit(corpus), "unshipped": unshipped(corpus)}
    for line in (*rows, *result["fit"]):
        print(json.dumps(line), file=sys.stderr)
    print(json.dumps(result))


def read() -> Corpus:
    documents = list(records(CORPUS))
    truth = {r["id"]: r for r in records(CORPUS.with_name("dev.truth.jsonl.zst"))}
    first: dict[int, int] = {}
    labels = [
        first.setdefault(truth[document["id"]]["cluster"], place)
        for place, document in enumerate(documents)
    ]
    groups = [truth[document["id"]]["group"].split(":")[0] for document in documents]
    ids = [document["id"] for document in documents]
    texts = [document["text"] for document in documents]
    unspaced = [100 * len(UNSPACED.findall(text)) >= len(text) for text in texts]
    return Corpus(ids, flat(texts), np.array(labels), groups, np.array(unspaced))


def find(corpus: Corpus, unit: Unit, ngram: int, threshold: float = THRESHOLD) -> Edges:
    """Find edges with bands that miss 1 pair in 10⁷ at 0.7: disagreements are not ours."""
    config = NearConfig(threshold=threshold, unit=unit, ngram=ngram, num_perm=256, bands=64, rows=4)
    return near_duplicates(*corpus.batch, config)


def row(corpus: Corpus, unit: Unit, ngram: int, base: Edges) -> dict[str, Any]:
    """Compare the clusters of one setting, and sort what differs into classes."""
    edges, truth = find(corpus, unit, ngram), corpus.truth
    ours = connected_components(truth.size, edges.left, edges.right)
    apart = truth[edges.left] != truth[edges.right]
    joined = Counter(corpus.group[doc] for doc in edges.left[apart])
    both = np.unique(np.stack([truth, ours]), axis=1)
    split = Counter(both[0].tolist())
    broken = [cluster for cluster, parts in split.items() if parts > 1]
    return {
        "unit": unit,
        "ngram": ngram,
        "ari": round(adjusted_rand(truth, ours), 4),
        "ari_without_rustbook": round(without(corpus, ours, "rustbook"), 4),
        "edges": int(edges.left.size),
        "edges_the_truth_lacks": int(apart.sum()),
        "lacking_by_jaccard": by_jaccard(edges.similarity[apart]),
        "edges_by_jaccard": by_jaccard(edges.similarity),
        "lacking_by_cause": causes(corpus, edges.left[apart], edges.right[apart]),
        "lacking_by_group": dict(joined.most_common(6)),
        "clusters_of_several_of_the_truth": sum(
            parts > 1 for parts in Counter(both[1].tolist()).values()
        ),
        "truth_clusters_that_we_split": len(broken),
        "of_them_by_one_id_for_two_texts": sum(shares_an_id(corpus, c) for c in broken),
        "split_edges": split_edges(corpus, ours, base),
        "split_by_group": dict(Counter(corpus.group[c] for c in broken).most_common(6)),
    }


def jaccards(corpus: Corpus, unit: Unit, ngram: int, left: Int64, right: Int64) -> Float32:
    docs, places = np.unique(np.append(left, right), return_inverse=True)
    shingled = shingle_sets(*corpus.batch, ngram, unit, docs)
    return verify_pairs(*shingled, places[: left.size], places[left.size :])


def causes(corpus: Corpus, left: Int64, right: Int64) -> dict[str, int]:
    """Say why the truth lacks edges: by its own 6-grams, by 5-grams, or by neither of both."""
    six = jaccards(corpus, "space", 6, left, right) >= np.float32(THRESHOLD)
    five = jaccards(corpus, "space", 5, left, right) >= np.float32(THRESHOLD)
    return {
        "missed_by_the_truth": int(six.sum()),
        "5_grams_are_more_alike": int((five & ~six).sum()),
        "words_are_more_alike": int((~five & ~six).sum()),
    }


def split_edges(corpus: Corpus, ours: Int64, base: Edges) -> dict[str, int]:
    """Count the truth's edges that go across our clusters, and those with unspaced scripts."""
    left, right = base.left, base.right
    across = (corpus.truth[left] == corpus.truth[right]) & (ours[left] != ours[right])
    unspaced = corpus.unspaced[left[across]] | corpus.unspaced[right[across]]
    return {"all": int(across.sum()), "with_unspaced_script": int(unspaced.sum())}


def by_jaccard(values: Float32) -> dict[str, int]:
    bins = [0.7, 0.72, 0.75, 0.8, 0.9, 1.01]
    counts = np.histogram(values, np.float32(bins))[0].tolist()  # 0.7 as the values have it
    return {f"from {low}": count for low, count in zip(bins[:-1], counts, strict=True)}


def shares_an_id(corpus: Corpus, cluster: int) -> bool:
    """Tell whether two documents of a cluster have one id, and so one entry in the truth."""
    ids = [corpus.ids[doc] for doc in np.flatnonzero(corpus.truth == cluster)]
    return len(set(ids)) < len(ids)


def without(corpus: Corpus, ours: Int64, group: str) -> float:
    rest = np.array([name != group for name in corpus.group])
    return adjusted_rand(corpus.truth[rest], ours[rest])


def adjusted_rand(a: Int64, b: Int64) -> float:
    """Hubert and Arabie 1985, equation 5."""

    def pairs(labels: np.ndarray[Any, Any]) -> float:
        sizes = np.unique(labels, return_counts=True, axis=-1)[1].astype(float)
        return float((sizes * (sizes - 1) / 2).sum())

    both, ones, others = pairs(np.stack([a, b])), pairs(a), pairs(b)
    chance = ones * others / (a.size * (a.size - 1) / 2)
    return (both - chance) / ((ones + others) / 2 - chance)


def fit(corpus: Corpus) -> list[dict[str, Any]]:
    """Ask each definition which pairs it would join, where one pair of different sets decides."""
    edges, n = find(corpus, "space", 5, 0.5), corpus.truth.size
    equal = edges.similarity >= 1
    sets = connected_components(n, edges.left[equal], edges.right[equal])
    wide = connected_components(n, edges.left, edges.right)
    sizes = Counter(wide[np.unique(sets)].tolist())
    single = ~equal & np.array([sizes[c] == 2 for c in wide[edges.left].tolist()])
    _, first = np.unique(wide[edges.left[single]], return_index=True)
    left, right = edges.left[single][first], edges.right[single][first]
    joined = corpus.truth[left] == corpus.truth[right]
    rows = []
    for unit in ("space", "word"):
        for ngram in (4, 5, 6, 7):
            jaccard = jaccards(corpus, unit, ngram, left, right)
            above = jaccard >= np.float32(THRESHOLD)
            rows.append(
                {
                    "unit": unit,
                    "ngram": ngram,
                    "pairs": int(left.size),
                    "above_but_apart": int((above & ~joined).sum()),
                    "below_but_joined": int((~above & joined).sum()),
                }
            )
    return rows


def unshipped(corpus: Corpus) -> dict[str, int]:
    """Count the truth's documents that are not in the corpus, and clusters they could hold."""
    all_ids = Counter(r["cluster"] for r in records(CORPUS.with_name("dev.truth.jsonl.zst")))
    return {
        "documents": sum(all_ids.values()) - corpus.truth.size,
        "clusters_all": len(all_ids),
        "clusters_shipped": int(np.unique(corpus.truth).size),
    }


if __name__ == "__main__":
    main()
