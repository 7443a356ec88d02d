"""One-permutation hashing against K permutations: error of the estimate, and speed.

    python -m benchmarks.dedup_oph

Pairs of texts of a known Jaccard similarity, of made-up words that no two pairs share; the error is
the root mean square over 1,000 pairs. Theory for K permutations: √(J(1 − J) / K).
"""

import json
import sys

import numpy as np

from benchmarks.corpus import cpu_seconds, documents, flat, pool
from dedup.config import NearConfig, Scheme
from dedup.minhash import signatures

PAIRS = 1_000
SIZES = (16, 64, 128, 256, 1024)
SCHEMES: tuple[Scheme, ...] = ("affine32", "oph")


def main() -> None:
    text, origin = pool(12_000_000)
    print(f"speed on ASCII text from {origin}", file=sys.stderr)
    print(json.dumps({"speed": speed(documents(text, 6_000)), "error": errors()}))


def speed(texts: list[str]) -> dict[str, int]:
    """Measure signatures of 4.5 KB documents a CPU second, for K = 128 and 512."""
    batch, found = flat(texts), {}
    for scheme in SCHEMES:
        for num_perm in (128, 512):
            config = NearConfig(scheme=scheme, num_perm=num_perm)
            seconds = cpu_seconds(lambda c=config: signatures(*batch, c), 5)
            found[f"{scheme}_{num_perm}"] = round(len(texts) / seconds)
    return found


def errors() -> dict[str, dict[str, float]]:
    """Return the RMS error by union size and similarity, of each scheme and in theory."""
    table = {}
    for size in SIZES:
        for jaccard in (0.5, 0.8):
            batch, real = flat(pairs(size, jaccard)), round(jaccard * size) / size
            row = {"theory_128": round((real * (1 - real) / 128) ** 0.5, 4)}
            for scheme in SCHEMES:
                found = signatures(*batch, NearConfig(scheme=scheme, ngram=1))
                estimate = (found[::2] == found[1::2]).mean(axis=1)
                row[scheme] = round(float(np.sqrt(np.mean((estimate - real) ** 2))), 4)
                row[f"{scheme}_bias"] = round(float(estimate.mean() - real), 4)
            table[f"{size} shingles, J = {jaccard}"] = row
    return table


def pairs(size: int, jaccard: float) -> list[str]:
    """Make pairs of texts whose word sets have `size` words in all, a share of them in common."""
    shared, texts = round(jaccard * size), []
    for pair in range(PAIRS):
        words = [f"p{pair}w{i}" for i in range(size)]
        common, rest = words[:shared], words[shared:]
        texts += [" ".join(common + rest[::2]), " ".join(common + rest[1::2])]
    return texts


if __name__ == "__main__":
    main()
