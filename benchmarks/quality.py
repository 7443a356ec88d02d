"""Speed of the signals and of the whole scan, and decisions against the tests' references.

    python -m benchmarks.quality [--quick] [--peers PYTHON]

Speeds are MB of text (for the scan too) a second of CPU time, medians, on every tenth record of
the development corpus beside the repository where it is there, else on English made of the
standard library's docstrings. Kernels are compiled before the clock starts.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from benchmarks.corpus import CORPUS, cpu_seconds, documents, pool, records
from dedup.bands import band_hashes, banding
from dedup.config import DedupConfig
from dedup.exact import content_hashes
from dedup.minhash import signatures
from pipelines import files
from pipelines.curate.plan import Plan, make_plan
from pipelines.curate.scan import ScanContext, by_shard, scan_range
from pipelines.filters import FiltersConfig, apply_rules, make_rules
from pipelines.quality import (
    ReferenceConfig,
    SignalsConfig,
    compression,
    compute_signals,
    gopher,
    importance,
    language,
    lengths,
    lines,
    marginal,
    ngram,
    pii,
    reference,
    repetition,
    web,
    windows,
)
from pipelines.readers import read_range
from pipelines.recipe import CurateRecipe, curate_recipe
from shards.hashing import file_xxh128
from shards.text import flat
from tests.pipelines.quality import test_gopher, test_lines, test_repetition, test_web

SAME = 500
"""Documents that datatrove decides on once for each difference."""
REFERENCE_BYTES = 20_000
"""The references compare every line with every other: longer documents are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on 2 cores")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has datatrove")
    options = parser.parse_args()
    found = sample(8_000_000 if options.quick else 30_000_000)
    texts = [record["text"] for record in found]
    repeats = 3 if options.quick else 5
    result: dict[str, Any] = {
        **speed(texts, repeats),
        "scan_mb_per_cpu_s": scan(found, repeats),
        **against_reference(texts, repeats),
        **mismatches(texts[: 600 if options.quick else 3000]),
    }
    if not options.quick:
        result["where_the_time_goes_ms_per_mb"] = where_the_time_goes(found, repeats)
    if options.peers:
        peer = datatrove(options.peers, texts[: 1000 if options.quick else 3000])
        differ = sum(variants["same"] for variants in peer["decisions"].values())
        result |= {"datatrove": peer, "mismatches": result["mismatches"] + differ}
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
    words = counts[:, gopher.WORDS].copy()
    config = SignalsConfig()

    def both() -> None:
        repetition.count(data, offsets, gopher.count(data, offsets))

    work = {
        "gopher": both,
        "gopher_quality": lambda: gopher.count(data, offsets),
        "gopher_repetition": lambda: repetition.count(data, offsets, counts),
        "lines": lambda: lines.count(data, offsets),
        "web": lambda: web.count(data, offsets, words),
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
        marginal.windows(text.encode() for text in texts[1::2]),
    )
    data, offsets = flat(pa.array(texts[::2], pa.large_string()))
    config = SignalsConfig(reference=ReferenceConfig(model="in memory"))
    work = {
        "ngram": lambda: ngram.bpb(trained.target, data, offsets),
        "common_windows": lambda: windows.common_share(trained.common, data, offsets),
        "marginal": lambda: marginal.marginal_bpb(trained.windows, data, offsets),
        "zstd_dictionary": lambda: compression.zstd_dictionary_bpb(
            data, offsets, trained.dictionary, trained.level
        ),
        "all_signals_with_reference": lambda: compute_signals(data, offsets, config, trained),
    }
    return {
        f"{name}_mb_per_cpu_s": round(data.size / 1e6 / cpu_seconds(job, repeats), 1)
        for name, job in work.items()
    }


@contextmanager
def written(found: list[dict[str, Any]]) -> Iterator[tuple[Path, CurateRecipe, Plan]]:
    """Write records as JSONL in zstd, and plan a scan of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.jsonl.zst")
        rows = (json.dumps(record, ensure_ascii=False) + "\n" for record in found)
        path.write_bytes(zstandard.compress("".join(rows).encode()))
        recipe = curate_recipe({"input": {"paths": [str(path)]}})
        hashed = [(str(path), path.stat().st_size, file_xxh128(path).hex())]
        yield path, recipe, make_plan(hashed, recipe, 16 << 20)


def scan(found: list[dict[str, Any]], repeats: int) -> float:
    """Measure reading, signals, hashes and signatures as the scan does them."""
    with written(found) as (_, recipe, plan):
        context = ScanContext(plan, recipe, *banding(recipe.dedup.near), "", "")

        def work() -> None:
            for index in range(len(plan.ranges)):
                for table, *_ in scan_range(index, context):
                    by_shard(table, plan.shards)

        size = sum(len(record["text"].encode()) for record in found)
        return round(size / 1e6 / cpu_seconds(work, repeats), 1)


def where_the_time_goes(found: list[dict[str, Any]], repeats: int) -> dict[str, float]:
    """Measure each step of the scan alone, ms of CPU a MB of text, and print a table."""
    data, offsets = flat(pa.array([record["text"] for record in found], pa.large_string()))
    megabytes, near = data.size / 1e6, DedupConfig().near
    counts = gopher.count(data, offsets)
    words = counts[:, gopher.WORDS].copy()
    with written(found) as (_, recipe, plan):
        ranges = plan.ranges

        def read() -> None:
            for span in ranges:
                for _ in read_range(span, files.open_file, recipe.input.fields):
                    pass

        steps = {
            "read (zstd, JSON)": read,
            "content hashes": lambda: content_hashes(data, offsets),
            "signatures and bands": lambda: band_hashes(
                signatures(data, offsets, near), *banding(near)
            ),
            "gopher quality": lambda: gopher.count(data, offsets),
            "gopher repetition": lambda: repetition.count(data, offsets, counts),
            "C4 and FineWeb lines": lambda: lines.count(data, offsets),
            "RefinedWeb and RedPajama-v2": lambda: web.count(data, offsets, words),
            "zstd_bpb": lambda: compression.zstd_bpb(data, offsets, 3),
            "(optional) language": lambda: language.compute(data, offsets),
            "(optional) personal data": lambda: pii.count(data, offsets),
            "(optional) importance": lambda: importance.weights(
                np.zeros(importance.BUCKETS, np.int64), data, offsets
            ),
        }
        taken = {
            name: round(1e3 * cpu_seconds(job, min(repeats, 3)) / megabytes, 2)
            for name, job in steps.items()
        }
        whole = round(1e3 / scan(found, min(repeats, 3)), 2)
    rest = whole - sum(value for name, value in taken.items() if not name.startswith("("))
    # Less than nothing where other jobs on the machine slowed the steps more than the whole.
    taken |= {"ids, sort, fragment rows": round(max(rest, 0), 2), "whole scan": whole}
    for name, value in taken.items():
        print(f"{name:28} {value:7.2f} ms/MB {1e3 / value if value > 0 else 0:8.1f} MB/s")
    return taken


def datatrove(python: str, texts: list[str]) -> dict[str, Any]:
    """Run datatrove on the same texts: MB a second of CPU, and how many decisions differ.

    `decisions` has for each preset the documents that the two decide differently on: with the same
    definitions (`same`), with one of datatrove's left (`without …`), with its own (`as_it_is`).
    """
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.jsonl")
        path.write_text(
            "".join(
                json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"
                for number, text in enumerate(texts)
            )
        )
        found = run_peer(python, "quality_peers.py", path)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:SAME]))
        theirs = run_peer(python, "quality_same.py", path)
    speeds = {
        f"{name}_mb_per_cpu_s": round(megabytes / value, 2)
        for name, value in found["seconds"].items()
    }
    columns = compute_signals(*flat(pa.array(texts[:SAME], pa.large_string())), SignalsConfig())
    decisions = {}
    for preset, variants in theirs.items():
        kept = apply_rules(make_rules(FiltersConfig(presets=[preset])), columns)[0] < 0
        decisions[preset] = {
            name: int((kept != np.array(keeps)).sum()) for name, keeps in variants.items()
        }
    return {"mb": round(megabytes, 1), **speeds, "decided": len(kept), "decisions": decisions}


def run_peer(python: str, script: str, path: Path) -> Any:
    """Run a script beside this one in another interpreter; return the JSON that it prints last."""
    command = [python, "-P", str(Path(__file__).with_name(script)), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def mismatches(texts: list[str]) -> dict[str, int]:
    """Count the documents where any count is not the plain-Python reference's."""
    short = [text for text in texts if len(text.encode()) <= REFERENCE_BYTES]
    batch = flat(pa.array(short, pa.large_string()))
    counts = gopher.count(*batch)
    pairs = (
        (counts, test_gopher.reference),
        (repetition.count(*batch, counts), test_repetition.reference),
        (lines.count(*batch), test_lines.reference),
        (web.count(*batch, counts[:, gopher.WORDS].copy()), test_web.reference),
    )
    wrong = np.zeros(len(short), np.bool_)
    for found, plain in pairs:
        wrong |= (found != np.array([plain(text) for text in short])).any(axis=1)
    return {"compared": len(short), "mismatches": int(wrong.sum())}


if __name__ == "__main__":
    main()
