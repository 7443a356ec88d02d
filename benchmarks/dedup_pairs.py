"""Real pairs ranked by estimated Jaccard: revisions first, the rest left alone?

    python -m benchmarks.dedup_pairs

`neardup_pairs.dev` beside the repository: two revisions of a document, a text and its
simplification, or different documents on one subject. The estimate is the share of equal minima of
two signatures (K = 128, word 5-grams). Printed: its error against the exact Jaccard similarity,
with what theory expects (the root of the mean of J(1 - J)/K); the AUC of revisions against the
rest; how many of the first 666 of the ranking, of which there are as many revisions, are revisions;
and of each kind how many reach a threshold, and its highest estimate.
"""

import json
from typing import Any

import numpy as np

from benchmarks.corpus import CORPUS, flat, records
from dedup.config import NearConfig
from dedup.minhash import signatures
from dedup.shingles import shingle_sets
from dedup.verify import Float32, verify_pairs

PAIRS = CORPUS.with_name("neardup_pairs.dev.jsonl.zst")
KINDS = ("revision", "simplification", "different")
THRESHOLDS = (0.5, 0.7, 0.8)


def main() -> None:
    print(json.dumps(ranked(list(records(PAIRS)))))


def ranked(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    batch = flat([text for pair in pairs for text in (pair["text_a"], pair["text_b"])])
    config = NearConfig()
    minima = signatures(*batch, config)
    estimate = (minima[::2] == minima[1::2]).mean(axis=1)
    left = np.arange(0, 2 * len(pairs), 2)
    exact = verify_pairs(*shingle_sets(*batch, config.ngram, config.unit), left, left + 1)
    kinds = np.array([pair["kind"] for pair in pairs])
    revision = kinds == KINDS[0]
    first = np.argsort(-estimate, kind="stable")[: revision.sum()]
    spread = exact * (1 - exact) / config.num_perm
    return {
        "pairs": len(pairs),
        "rmse": round(float(np.sqrt(np.mean((estimate - exact) ** 2))), 4),
        "rmse_theory": round(float(np.sqrt(np.mean(spread))), 4),
        "auc_estimate": round(auc(estimate[revision], estimate[~revision]), 4),
        "auc_exact": round(auc(exact[revision], exact[~revision]), 4),
        "revisions_in_first": int(revision[first].sum()),
        "kinds": {kind: row(estimate[kinds == kind], exact[kinds == kind]) for kind in KINDS},
    }


def row(estimate: Float32, exact: Float32) -> dict[str, Any]:
    """Describe the pairs of one kind."""
    return {
        "n": estimate.size,
        **{f"estimated_from_{t}": int((estimate >= t).sum()) for t in THRESHOLDS},
        **{f"exact_from_{t}": int((exact >= np.float32(t)).sum()) for t in THRESHOLDS},
        "highest_estimate": round(float(estimate.max()), 3),
        "highest_exact": round(float(exact.max()), 3),
        "median_estimate": round(float(np.median(estimate)), 3),
    }


def auc(above: Float32, below: Float32) -> float:
    """Return the probability that one of `above` is larger than one of `below`, ties half."""
    ordered = np.sort(below)
    smaller = np.searchsorted(ordered, above, "left") + np.searchsorted(ordered, above, "right")
    return float(smaller.mean() / 2 / below.size)


if __name__ == "__main__":
    main()
