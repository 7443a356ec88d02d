"""Deduplication against datasketch and a brute-force oracle: speed, recall, precision.

    python -m benchmarks.dedup [--quick | --edits | --peers]

Documents are 4.5 KB of English, slices of real text (the development corpus beside the
repository where it is there, else the standard library's docstrings), a quarter of them edited
copies of others. Speeds are documents per second of CPU time, medians; datasketch runs on the
same texts in the same process. Everything is seeded. The full run adds growth (1×, 4×, 16×),
adversarial corpora, other tools and the ranking of real pairs.
"""

import argparse
import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

import datasketch
import numpy as np

from benchmarks.corpus import Flat, cpu_seconds, documents, flat, pool, records
from benchmarks.dedup_edits import edits
from benchmarks.dedup_pairs import PAIRS, ranked
from benchmarks.dedup_peers import N_SLOW, Work, against, peers
from dedup.components import connected_components
from dedup.config import NearConfig
from dedup.exact import content_hashes
from dedup.incremental import SignatureIndex, empty_index, extend
from dedup.keep import keep_greedy
from dedup.minhash import signatures
from dedup.near import near_duplicates
from dedup.shingles import shingles
from dedup.words import UInt64

WORD = re.compile(r"[a-z0-9]+")

Pairs = dict[tuple[int, int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on 2 cores")
    parser.add_argument("--edits", action="store_true", help="recall on edited copies only")
    parser.add_argument("--peers", action="store_true", help="other tools only")
    options = parser.parse_args()
    quick = options.quick
    text, origin = pool(12_000_000 if quick else 60_000_000)
    print(f"{len(text) / 1e6:.0f} MB of ASCII text from {origin}", file=sys.stderr)
    if options.edits:
        print(json.dumps({"edits": edits(text)}))
        return
    if options.peers:
        print(json.dumps(compare(documents(text, 4_000, seed=2))))
        return
    result = {
        **speed(documents(text, 6_000 if quick else 24_000), 5 if quick else 9),
        **quality(documents(text, 4_000 if quick else 10_000, seed=2)),
    }
    if not quick:
        result["growth"] = growth(text)
        result["adversarial_s"] = adversarial()
        result["peers"] = compare(documents(text, 4_000, seed=2))
        if PAIRS.exists():
            result["pairs"] = ranked(list(records(PAIRS)))
        result["incremental"] = incremental(documents(text, 24_000, seed=4))
    print(json.dumps(result))


def speed(texts: list[str], repeats: int) -> dict[str, float]:
    """Measure signatures, verified deduplication and datasketch, in documents a CPU second."""
    batch, config = flat(texts), NearConfig()
    signed = len(texts) / cpu_seconds(lambda: signatures(*batch, config), repeats)
    verified = len(texts) / cpu_seconds(lambda: deduplicate(batch, config), repeats)
    few = texts[:300]
    peer = len(few) / cpu_seconds(lambda: datasketch_signatures(few), 3)
    return {
        "documents": len(texts),
        "mean_bytes": round(batch[0].size / len(texts)),
        "signatures_docs_per_cpu_s": round(signed),
        "verified_docs_per_cpu_s": round(verified),
        "datasketch_docs_per_cpu_s": round(peer),
        "ratio_datasketch": round(signed / peer, 1),
    }


def deduplicate(batch: Flat, config: NearConfig) -> np.ndarray[Any, Any]:
    """Do the whole job, from text to each document's verified match (-1: kept)."""
    data, offsets = batch
    n = offsets.size - 1
    content = content_keys(batch)
    rank = np.empty(n, dtype=np.int64)
    rank[np.lexsort((content, -np.diff(offsets)))] = np.arange(n)
    edges = near_duplicates(data, offsets, config, content, rank)
    connected_components(n, edges.left, edges.right)
    eligible = np.ones(n, dtype=np.bool_)
    return keep_greedy(n, edges.left, edges.right, edges.similarity, eligible, rank)[0]


def word_ngrams(text: str, n: int = 5) -> set[str]:
    """The oracle's own definition, which on ASCII text is `word-v1`."""
    words = WORD.findall(text.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)} or {" ".join(words)}


def datasketch_signatures(texts: list[str]) -> list[Any]:
    made = []
    for text in texts:
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([ngram.encode() for ngram in word_ngrams(text)])
        made.append(sketch)
    return made


def quality(texts: list[str]) -> dict[str, Any]:
    """Compare the pairs found with all pairs that brute force finds."""
    truth = true_pairs([word_ngrams(text) for text in texts], 0.5)
    found = {t: found_pairs(texts, t) for t in (0.7, 0.8)}
    wrong = sum(truth.get(pair, 0) < t - 1e-7 for t in found for pair in found[t])
    high = {pair for pair, jaccard in truth.items() if jaccard >= 0.8}
    middle = {pair for pair, jaccard in truth.items() if 0.7 <= jaccard < 0.8}
    return {
        "recall_j80": round(len(high & found[0.8]) / len(high), 5),
        "recall_j70": round(len(middle & found[0.7]) / len(middle), 5),
        "precision": round(1 - wrong / sum(map(len, found.values())), 5),
        "true_pairs_j80": len(high),
        "true_pairs_j70": len(middle),
        "datasketch_equal": all(datasketch_equal(texts[:40], s) for s in ("affine32", "legacy")),
    }


def true_pairs(sets: list[set[str]], least: float) -> Pairs:
    """Count shared shingles of all pairs with an inverted index: every pair, no sketches."""
    holders = defaultdict(list)
    for doc, ngrams in enumerate(sets):
        for ngram in ngrams:
            holders[ngram].append(doc)
    shared = Counter(pair for docs in holders.values() for pair in combinations(docs, 2))
    jaccard = {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in shared.items()}
    return {pair: value for pair, value in jaccard.items() if value >= least}


def found_pairs(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    edges = near_duplicates(*flat(texts), NearConfig(threshold=threshold))
    return set(zip(edges.left.tolist(), edges.right.tolist(), strict=True))


def datasketch_equal(texts: list[str], scheme: Any) -> bool:
    """Tell whether signatures are datasketch's, bit for bit, given the same 32-bit hashes."""
    found = signatures(*flat(texts), NearConfig(scheme=scheme))
    hashes, bounds = shingles(*flat(texts), 5, "word")
    for doc, row in enumerate(found):
        peer = datasketch.MinHash(num_perm=128, scheme=scheme, hashfunc=lambda value: value)
        peer.update_batch([int(h) >> 32 for h in hashes[bounds[doc] : bounds[doc + 1]]])
        if row.tolist() != peer.hashvalues.tolist():
            return False
    return True


def growth(text: str) -> dict[str, int]:
    """Measure verified deduplication at 1×, 4× and 16× documents: linear means equal speeds."""
    made = {n: flat(documents(text, n, seed=3)) for n in (3_000, 12_000, 48_000)}
    return {
        str(n): round(n / cpu_seconds(lambda b=batch: deduplicate(b, NearConfig()), 3))
        for n, batch in made.items()
    }


def incremental(texts: list[str]) -> dict[str, float | bool]:
    """Time 1,000 documents that arrive after all others, and weigh the index."""
    old, new = flat(texts[:-1000]), flat(texts[-1000:])
    keys = np.arange(len(texts), dtype=np.uint64)
    index = add(empty_index(NearConfig()), old, keys[:-1000])
    grown = add(index, new, keys[-1000:])
    whole = add(empty_index(NearConfig()), flat(texts), keys)
    return {
        "equals_one_run": all(map(np.array_equal, grown[1:], whole[1:])),
        "index_bytes_per_document": round(sum(a.nbytes for a in whole[1:]) / len(texts)),
        "whole_cpu_s": round(
            cpu_seconds(lambda: add(empty_index(NearConfig()), flat(texts), keys), 1), 2
        ),
        "extend_cpu_s": round(cpu_seconds(lambda: add(index, new, keys[-1000:]), 3), 3),
    }


def compare(texts: list[str]) -> dict[str, Any]:
    """Measure ours and the other tools on the same texts, in turns."""
    truth = true_pairs([word_ngrams(text) for text in texts], 0.8)
    twins = {doc for pair in truth for doc in pair}
    flagged = {doc for pair in found_pairs(texts, 0.8) for doc in pair}
    batch, config = flat(texts), NearConfig()
    work = {
        "signatures_docs_per_cpu_s": Work(lambda _: signatures(*batch, config), texts),
        "duplicates_docs_per_cpu_s": Work(lambda _: deduplicate(batch, config), texts),
        "datasketch_docs_per_cpu_s": Work(datasketch_signatures, texts[:N_SLOW]),
    }
    others, ours = peers(texts, twins, work)
    others["datasketch"] = {"signatures_docs_per_cpu_s": ours.pop("datasketch_docs_per_cpu_s")}
    signed = ours["signatures_docs_per_cpu_s"]
    times = {
        name: round(signed / row["signatures_docs_per_cpu_s"], 1) for name, row in others.items()
    }
    ours.update(against(flagged, twins))
    load = [round(value, 1) for value in os.getloadavg()]
    return {"twins": len(twins), "load": load, "ours": ours, **others, "ratio_signatures": times}


def add(index: SignatureIndex, batch: Flat, keys: UInt64) -> SignatureIndex:
    return extend(index, *batch, keys, content_keys(batch))


def content_keys(batch: Flat) -> UInt64:
    """Return 64 bits of each content hash."""
    return np.ascontiguousarray(content_hashes(*batch)[:, :8]).view(np.uint64).ravel()


def adversarial() -> dict[str, float]:
    """Time what breaks naive implementations, in CPU seconds."""
    words = " ".join(f"w{i}" for i in range(200))
    rng = random.Random(5)
    boilerplate = [f"{words} {rng.random()}" for _ in range(100_000)]
    long = " ".join(f"w{i % 9_000_000}" for i in range(11_000_000))
    cases = {
        "identical_100k": flat([words] * 100_000),
        "boilerplate_100k": flat(boilerplate),
        "one_100_mb": flat([long]),
        "empty_and_one_word_100k": flat(["", "word"] * 50_000),
        "one_word_repeated_10_mb": flat(["a " * 5_000_000]),
    }
    return {
        name: round(cpu_seconds(lambda b=batch: deduplicate(b, NearConfig()), 1), 2)
        for name, batch in cases.items()
    }


if __name__ == "__main__":
    main()
