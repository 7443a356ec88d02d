"""Speed of the signals and of the whole scan, and decisions against the tests' references.

    python -m benchmarks.quality [--quick]

Speeds are MB of text (for the scan too) a second of CPU time, medians, on every tenth record of
the development corpus beside the repository where it is there, else on English made of the
standard library's docstrings. Kernels are compiled before the clock starts.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from benchmarks.corpus import CORPUS, cpu_seconds, documents, pool, records
from dedup.bands import banding
from pipelines.curate.plan import make_plan
from pipelines.curate.scan import ScanContext, scan_range
from pipelines.quality import (
    ReferenceConfig,
    SignalsConfig,
    compression,
    compute_signals,
    gopher,
    lengths,
    lines,
    ngram,
    reference,
    repetition,
    windows,
)
from pipelines.recipe import curate_recipe
from shards.hashing import file_xxh128
from shards.text import flat
from tests.pipelines.quality import test_gopher, test_lines, test_repetition

REFERENCE_BYTES = 20_000
"""The references compare every line with every other: longer documents are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on 2 cores")
    options = parser.parse_args()
    found = sample(12_000_000 if options.quick else 60_000_000)
    texts = [record["text"] for record in found]
    repeats = 3 if options.quick else 9
    result = {
        **speed(texts, repeats),
        "scan_mb_per_cpu_s": scan(found, repeats),
        **against_reference(texts, repeats),
        **mismatches(texts[: 600 if options.quick else 6000]),
    }
    print(json.dumps(result))


def sample(n_bytes: int) -> list[dict[str, Any]]:
    """Return records with about `n_bytes` of text."""
    if not CORPUS.exists():
        made = documents(pool(n_bytes)[0], n_bytes // 4500)
        return [{"text": text} for text in made]
    found, size = [], 0
    for place, record in enumerate(records(CORPUS)):
        if place % 10 == 0:
            found.append(record)
            size += len(record["text"].encode())
        if size >= n_bytes:
            break
    return found


def speed(texts: list[str], repeats: int) -> dict[str, float]:
    """Measure each part of the signals, and all of them."""
    data, offsets = flat(pa.array(texts, pa.large_string()))
    counts = gopher.count(data, offsets)
    config = SignalsConfig()

    def both() -> None:
        repetition.count(data, offsets, gopher.count(data, offsets))

    work = {
        "gopher": both,
        "gopher_quality": lambda: gopher.count(data, offsets),
        "gopher_repetition": lambda: repetition.count(data, offsets, counts),
        "lines": lambda: lines.count(data, offsets),
        "zstd": lambda: compression.zstd_bpb(data, offsets, config.zstd_level),
        "all_signals": lambda: compute_signals(data, offsets, config),
    }
    megabytes = data.size / 1e6
    speeds = {
        f"{name}_mb_per_cpu_s": round(megabytes / cpu_seconds(job, repeats), 1)
        for name, job in work.items()
    }
    return {"documents": len(texts), "mb": round(megabytes, 1), **speeds}


def against_reference(texts: list[str], repeats: int) -> dict[str, float]:
    """Measure what a reference adds, with the other half of the texts as reference and base."""
    learned = flat(pa.array(texts[1::2], pa.large_string()))
    model = ngram.train(*learned)
    curve = lengths.fit([lengths.pieces(lambda *batch: ngram.bpb(model, *batch), *learned)])
    trained = reference.Reference(
        model,
        model,
        windows.find_common(*learned),
        compression.zstd_dictionary(*learned, level=3),
        3,
        dict.fromkeys(("zstd_bpb", "ref_bpb", "ref_delta"), curve),
    )
    data, offsets = flat(pa.array(texts[::2], pa.large_string()))
    config = SignalsConfig(reference=ReferenceConfig(model="in memory"))
    work = {
        "ngram": lambda: ngram.bpb(trained.target, data, offsets),
        "common_windows": lambda: windows.common_share(trained.common, data, offsets),
        "zstd_dictionary": lambda: compression.zstd_dictionary_bpb(
            data, offsets, trained.dictionary, trained.level
        ),
        "all_signals_with_reference": lambda: compute_signals(data, offsets, config, trained),
    }
    return {
        f"{name}_mb_per_cpu_s": round(data.size / 1e6 / cpu_seconds(job, repeats), 1)
        for name, job in work.items()
    }


def scan(found: list[dict[str, Any]], repeats: int) -> float:
    """Measure reading, signals, hashes and signatures as the scan does them, from JSONL in zstd."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.jsonl.zst")
        rows = (json.dumps(record, ensure_ascii=False) + "\n" for record in found)
        path.write_bytes(zstandard.compress("".join(rows).encode()))
        recipe = curate_recipe({"input": {"paths": [str(path)]}})
        plan = make_plan(
            [(str(path), path.stat().st_size, file_xxh128(path).hex())], recipe, 16 << 20
        )
        context = ScanContext(plan, recipe, *banding(recipe.dedup.near), "", "")

        def work() -> None:
            for index in range(len(plan.ranges)):
                scan_range(index, context)

        size = sum(len(record["text"].encode()) for record in found)
        return round(size / 1e6 / cpu_seconds(work, repeats), 1)


def mismatches(texts: list[str]) -> dict[str, int]:
    """Count the documents where any count is not the plain-Python reference's."""
    short = [text for text in texts if len(text.encode()) <= REFERENCE_BYTES]
    batch = flat(pa.array(short, pa.large_string()))
    counts = gopher.count(*batch)
    pairs = (
        (counts, test_gopher.reference),
        (repetition.count(*batch, counts), test_repetition.reference),
        (lines.count(*batch), test_lines.reference),
    )
    wrong = np.zeros(len(short), np.bool_)
    for found, plain in pairs:
        wrong |= (found != np.array([plain(text) for text in short])).any(axis=1)
    return {"compared": len(short), "mismatches": int(wrong.sum())}


if __name__ == "__main__":
    main()
