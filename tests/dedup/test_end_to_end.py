"""All kernels in the order in which the curate job runs them, against brute force."""

import numpy as np
import pytest

from dedup.bands import band_hashes, banding
from dedup.candidates import candidate_pairs
from dedup.components import connected_components
from dedup.config import NearConfig
from dedup.exact import content_hashes
from dedup.keep import keep_greedy
from dedup.minhash import signatures
from dedup.shingles import shingle_sets
from dedup.verify import verify_pairs


def duplicates(flat, texts, config, cut):
    """Verified edges {(left, right): Jaccard}, signatures made in batches cut at `cut`."""
    parts = [texts[:cut], texts[cut:]]
    bands, rows = banding(config)
    hashes = np.concatenate(
        [band_hashes(signatures(*flat(part), config), bands, rows) for part in parts]
    )
    content = content_hashes(*flat(texts))[:, :8].copy().view(np.uint64).ravel()
    docs = np.repeat(np.arange(len(texts)), bands)
    left, right = candidate_pairs(hashes.ravel(), docs, np.repeat(content, bands))
    jaccard = verify_pairs(*shingle_sets(*flat(texts), config.ngram, config.unit), left, right)
    real = jaccard >= np.float32(config.threshold)
    return left[real], right[real], jaccard[real]


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_every_pair_is_found_and_only_those(flat, oracle, corpus, threshold):
    left, right, _ = duplicates(flat, corpus, NearConfig(threshold=threshold), 30)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    expected = {
        (i, j)
        for j in range(len(corpus))
        for i in range(j)
        if oracle.jaccard(corpus[i], corpus[j], 5) >= threshold
    }
    assert len(expected) > 50
    assert found <= expected
    # Equal contents meet only their first, which stands for them.
    firsts = {corpus.index(text) for text in corpus}
    missed = {pair for pair in expected - found if firsts.issuperset(pair)}
    assert len(missed) <= len(expected) / 100
    labels = connected_components(len(corpus), left, right)
    assert labels.tolist() == oracle.components(len(corpus), sorted(expected))


def test_batches_and_order_change_nothing(flat, corpus):
    config = NearConfig(threshold=0.6)
    kept = {}
    for name, cut, order in (
        ("one batch", 0, np.arange(len(corpus))),
        ("two batches", 50, np.arange(len(corpus))),
        ("reversed", 20, np.arange(len(corpus))[::-1]),
        ("shuffled", 77, np.random.default_rng(3).permutation(len(corpus))),
    ):
        texts = [corpus[i] for i in order]
        edges = duplicates(flat, texts, config, cut)
        # The longest text first, then by the document's own place: what its doc_id would be.
        rank = np.empty(len(texts), dtype=np.int64)
        rank[np.lexsort((order, [-len(text) for text in texts]))] = np.arange(len(texts))
        matched, jaccard = keep_greedy(
            len(texts), *edges, np.ones(len(texts), dtype=np.bool_), rank
        )
        kept[name] = {
            (int(order[doc]), int(order[match]) if match >= 0 else -1, float(similarity))
            for doc, (match, similarity) in enumerate(zip(matched, jaccard, strict=True))
        }
    assert kept["one batch"] == kept["two batches"] == kept["reversed"] == kept["shuffled"]
    assert sum(match >= 0 for _, match, _ in kept["one batch"]) > 30
