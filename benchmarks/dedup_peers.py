"""Other near-deduplication tools on the benchmark's texts; those that are missing are named.

    python -m benchmarks.dedup --peers

Each gets the same texts and word 5-grams, and the bands of ours (datatrove: its own 14 × 8). What
a tool leaves to its caller, such as making n-grams for rensa, is done in plain Python and counted.
`signatures` is text to signatures (gaoya: to a filled index), `duplicates` text to a duplicate flag
for each document (gaoya hashes a text twice for that, to insert and to query). No peer verifies
exactly (gaoya checks its estimate, rensa nothing), so the flags are held against the truth; what
counts as a word differs a little between tools.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

NUM_PERM, BANDS, ROWS, NGRAM = 128, 21, 6, 5
N_SLOW, N_FAST = 300, 3000
ROUNDS = 7

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


def gaoya_inserts() -> Signatures:
    """Text to signatures in its index: what gaoya does of its own accord, without a query."""
    from gaoya.minhash import MinHashStringIndex

    def run(texts: list[str]) -> object:
        index = MinHashStringIndex(32, 0.8, BANDS, ROWS, None, "word", True, (NGRAM, NGRAM), "vec")
        for place, text in enumerate(texts):
            index.insert_document(place, text)
        return index

    return run


SIGNATURES: dict[str, tuple[Callable[[], Signatures], int]] = {
    "datatrove_split": (datatrove_signatures, N_SLOW),
    "text_dedup": (text_dedup_signatures, N_SLOW),
    "rensa": (rensa_signatures, N_FAST),
    "gaoya": (gaoya_inserts, N_FAST),
}
FLAGS: dict[str, Callable[[], Flags]] = {"rensa": rensa_flags, "gaoya": gaoya_flags}


class Work(NamedTuple):
    """What is timed: `run(texts)`, over so many documents."""

    run: Callable[[list[str]], object]
    texts: list[str]


def peers(
    texts: list[str], twins: set[int], ours: dict[str, Work]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Time all tools in turns, and compare the peers' flags with the truth.

    Args:
        texts: the documents.
        twins: those that have a twin at J ≥ 0.8, by brute force.
        ours: what of ours takes part, by the name of its rate.

    Returns:
        Of each peer, documents a CPU second and how its flags compare; and our own rates.
    """
    rows: dict[str, dict[str, Any]] = {}
    work = {("ours", name): part for name, part in ours.items()}
    for name, (make, n) in SIGNATURES.items():
        with named_if_missing(name):
            work[name, "signatures_docs_per_cpu_s"] = Work(make(), texts[:n])
    for name, make_flags in FLAGS.items():
        with named_if_missing(name):
            flag = make_flags()
            flagged = {doc for doc, is_flagged in enumerate(flag(texts)) if is_flagged}
            rows[name] = dict(against(flagged, twins))
            work[name, "duplicates_docs_per_cpu_s"] = Work(flag, texts)
    for (name, measure), rate in rates(work).items():
        rows.setdefault(name, {})[measure] = rate
    return rows, rows.pop("ours")


def rates(work: dict[tuple[str, str], Work], rounds: int = ROUNDS) -> dict[tuple[str, str], int]:
    """Return documents a CPU second of each: the median over rounds in which all take their turn.

    Turns, since a busy machine or a lower clock then slows all of them and not the one whose
    minute it was. The first round is not counted.
    """
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, part in work.items():
            start = time.process_time()
            part.run(part.texts)
            seconds[name].append(time.process_time() - start)
    return {
        name: round(len(work[name].texts) / statistics.median(times[1:]))
        for name, times in seconds.items()
    }


def against(flagged: set[int], twins: set[int]) -> dict[str, int]:
    """Compare flagged documents with those that have a twin."""
    return {
        "flagged": len(flagged),
        "flagged_without_twin": len(flagged - twins),
        "twins_missed": len(twins - flagged),
    }


@contextlib.contextmanager
def named_if_missing(name: str) -> Iterator[None]:
    """Skip a peer that cannot be imported, and say so."""
    try:
        yield
    except ImportError as error:
        print(f"{name}: not measured ({error})", file=sys.stderr)
