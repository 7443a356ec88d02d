"""Texts and clocks that the benchmarks share."""

import io
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from dedup.words import Int64, UInt8

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "dev.jsonl.zst"
DOCUMENT_BYTES = 4500
SLICE_BYTES = 560
COPIES = 0.25

Flat = tuple[UInt8, Int64]


def pool(n_bytes: int) -> tuple[str, str]:
    """Return ASCII text of up to `n_bytes` and where it comes from."""
    parts: list[str] = []
    size = 0
    for text in development_texts() if CORPUS.exists() else docstrings():
        if text.isascii():
            parts.append(text)
            size += len(text) + 1
            if size >= n_bytes:
                break
    origin = CORPUS.name if CORPUS.exists() else "the standard library's docstrings"
    return "\n".join(parts), origin


def development_texts() -> Iterator[str]:
    return (record["text"] for record in records(CORPUS) if record["lang"] == "en")


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSONL file in zstd."""
    with zstandard.open(path, "rb") as file:
        for line in io.TextIOWrapper(file, encoding="utf-8"):
            yield json.loads(line)


def docstrings() -> Iterator[str]:
    """Yield the string literals that open blocks in the standard library's sources."""
    for path in sorted(Path(io.__file__).parent.rglob("*.py")):
        if "site-packages" not in path.parts:
            source = path.read_text(encoding="utf-8", errors="replace")
            yield from re.findall(r'^\s*r?"""(.+?)"""', source, re.DOTALL | re.MULTILINE)


def documents(text: str, n: int, seed: int = 1, copies: float = COPIES) -> list[str]:
    """Make `n` documents of about 4.5 KB; some are copies with 0 to 5 % of words replaced."""
    rng = random.Random(seed)
    n_slices = DOCUMENT_BYTES // SLICE_BYTES
    originals = []
    for _ in range(round(n * (1 - copies))):
        starts = (rng.randrange(len(text) - SLICE_BYTES) for _ in range(n_slices))
        originals.append(" ".join(text[start : start + SLICE_BYTES] for start in starts))
    changed = [edited(rng.choice(originals), rng) for _ in range(n - len(originals))]
    made = originals + changed
    rng.shuffle(made)
    return made


def edited(text: str, rng: random.Random) -> str:
    """Replace some words, which takes about five 5-grams each with it."""
    words = text.split(" ")
    for _ in range(round(rng.uniform(0, 0.05) * len(words))):
        words[rng.randrange(len(words))] = f"edit{rng.randrange(10**6)}"
    return " ".join(words)


def flat(texts: Sequence[str | bytes]) -> Flat:
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    return np.frombuffer(b"".join(raw), dtype=np.uint8), offsets


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of `work`, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)
