"""Other near-deduplication tools on the benchmark's texts; those that are missing are named.

    python -m benchmarks.dedup --peers

Each gets the same texts and word 5-grams, and the bands of ours (datatrove: its own 14 × 8). What
a tool leaves to its caller, such as making n-grams for rensa, is done in plain Python and counted.
`signatures` is text to signatures, `duplicates` text to a duplicate flag for each document (gaoya
hashes a text twice for that, to insert and to query). No peer verifies exactly (gaoya checks its
estimate, rensa nothing), so the flags are held against the truth; what counts as a word differs
a little between tools.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.corpus import cpu_seconds

NUM_PERM, BANDS, ROWS, NGRAM = 128, 21, 6, 5
N_SLOW, N_FAST = 300, 3000

Signatures = Callable[[list[str]], object]
Flags = Callable[[list[str]], list[bool]]


def word_lists(texts: list[str]) -> list[list[str]]:
    """Return the n-grams of each text: words in small letters, joined by a space."""
    out = []
    for text in texts:
        words = text.lower().split()
        out.append([" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)])
    return out


def rensa_signatures() -> Signatures:
    from rensa import RMinHash

    return lambda texts: RMinHash.digest_matrix_from_token_sets(word_lists(texts), NUM_PERM, 42)


def rensa_flags() -> Flags:
    from rensa import RMinHash, RMinHashLSH

    def run(texts: list[str]) -> list[bool]:
        index = RMinHashLSH(0.8, BANDS * ROWS, BANDS)
        matrix = RMinHash.digest_matrix_from_token_sets(word_lists(texts), BANDS * ROWS, 42)
        return list(index.query_duplicate_flags_matrix_one_shot(matrix))

    return run


def gaoya_flags() -> Flags:
    from gaoya.minhash import MinHashStringIndex

    def run(texts: list[str]) -> list[bool]:
        index = MinHashStringIndex(32, 0.8, BANDS, ROWS, None, "word", True, (NGRAM, NGRAM), "vec")
        for place, text in enumerate(texts):
            index.insert_document(place, text)
        return [len(index.query(text)) > 1 for text in texts]

    return run


def text_dedup_signatures() -> Signatures:
    from text_dedup.minhash import embed_func, xxh3_32hash

    generator = np.random.RandomState(42)
    prime, top = np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1)
    permutations = (
        generator.randint(1, prime, size=NUM_PERM, dtype=np.uint64),
        generator.randint(0, prime, size=NUM_PERM, dtype=np.uint64),
    )
    ranges = [(band * ROWS, (band + 1) * ROWS) for band in range(BANDS)]
    return lambda texts: [
        embed_func(
            text,
            place,
            num_perm=NUM_PERM,
            ngram_size=NGRAM,
            min_length=NGRAM,
            hashranges=ranges,
            permutations=permutations,
            hash_func=xxh3_32hash,
            dtype=np.uint64,
            max_hash=top,
            modulo_prime=prime,
        )
        for place, text in enumerate(texts)
    ]


def datatrove_signatures() -> Signatures:
    import datatrove.pipeline.dedup.minhash as datatrove

    class Split:
        @staticmethod
        def word_tokenize(text: str) -> list[str]:
            return text.split()

    # White space in place of its English tokenizer: about seven times faster.
    datatrove.load_word_tokenizer = lambda language: Split
    step = datatrove.MinhashDedupSignature("memory://signatures")
    return lambda texts: [step.get_signature(step.get_shingles(text)) for text in texts]


SIGNATURES: dict[str, tuple[Callable[[], Signatures], int]] = {
    "datatrove_split": (datatrove_signatures, N_SLOW),
    "text_dedup": (text_dedup_signatures, N_SLOW),
    "rensa": (rensa_signatures, N_FAST),
}
FLAGS: dict[str, Callable[[], Flags]] = {"rensa": rensa_flags, "gaoya": gaoya_flags}


def peers(texts: list[str], twins: set[int]) -> dict[str, dict[str, Any]]:
    """Return documents a CPU second of each peer, and how its flags compare with the truth.

    Args:
        texts: the documents.
        twins: those that have a twin at J ≥ 0.8, by brute force.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, (make, n) in SIGNATURES.items():
        with named_if_missing(name):
            run = make()
            some = texts[:n]
            rows[name] = {"signatures_docs_per_cpu_s": rate(some, run)}
    for name, make_flags in FLAGS.items():
        with named_if_missing(name):
            flag = make_flags()
            flagged = {doc for doc, is_flagged in enumerate(flag(texts)) if is_flagged}
            rows.setdefault(name, {}).update(
                duplicates_docs_per_cpu_s=rate(texts, flag), **against(flagged, twins)
            )
    return rows


def against(flagged: set[int], twins: set[int]) -> dict[str, int]:
    """Compare flagged documents with those that have a twin."""
    return {
        "flagged": len(flagged),
        "flagged_without_twin": len(flagged - twins),
        "twins_missed": len(twins - flagged),
    }


def rate(texts: list[str], run: Callable[[list[str]], object]) -> int:
    return round(len(texts) / cpu_seconds(lambda: run(texts), 3))


@contextlib.contextmanager
def named_if_missing(name: str) -> Iterator[None]:
    """Skip a peer that cannot be imported, and say so."""
    try:
        yield
    except ImportError as error:
        print(f"{name}: not measured ({error})", file=sys.stderr)
