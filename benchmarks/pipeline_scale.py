"""The scale curve of `benchmarks.pipeline --gb N`: the whole chain at three sizes, in turn.

Each size is text made from seeded edits of real text (`benchmarks.corpus`), taken through curate,
tokenizer and tokenize with default settings and two workers, each stage a command of its own. A
size that is done is in the state file and not run again, so the curve can be made in several
sittings.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpus import documents, pool
from benchmarks.processes import run_and_watch
from pipelines.commit import WORK

CHUNK_DOCUMENTS = 20_000
SHARES = (0.06, 0.25, 1.0)
"""Of the largest size: 0.6, 2.5 and 10 GB."""


def scale_curve(root: Path, gb: float, state: Path, workers: int = 2) -> dict[str, Any]:
    """Run the sizes that are not in `state` yet; return all of them, and how linear they are."""
    done: dict[str, dict[str, Any]] = json.loads(state.read_text()) if state.exists() else {}
    for share in SHARES:
        key = f"{round(gb * share, 3)} GB, {workers} workers"
        if key not in done:
            shutil.rmtree(root, ignore_errors=True)  # of a run that was interrupted
            root.mkdir(parents=True)
            done[key] = whole_chain(root, round(gb * share * 1e9), workers)
            state.write_text(json.dumps(done, indent=1))
            print(json.dumps({key: done[key]}), file=sys.stderr, flush=True)
        shutil.rmtree(root, ignore_errors=True)
    curve = [done[f"{round(gb * share, 3)} GB, {workers} workers"] for share in SHARES]
    return {"curve": curve, "linearity": linearity(curve)}


def whole_chain(root: Path, n_bytes: int, workers: int) -> dict[str, Any]:
    """Make the text and run the stages."""
    path = root / "made.jsonl"
    start = time.monotonic()
    size = write_made(path, n_bytes)
    making = time.monotonic() - start
    recipe = root / "recipe.toml"
    recipe.write_text(
        f"[input]\npaths = [{json.dumps(str(path))}]\n[filters]\npresets = ['gopher']\n"
    )
    data, model, tokens = (str(root / name) for name in ("curated", "tokenizer", "tokens"))
    beam = ("--workers", str(workers))
    stages = {
        "curate": ("curate", str(recipe), "--out", data, *beam),
        "tokenizer": ("tokenizer", "train", str(recipe), "--data", data, "--out", model),
        "tokenize": (
            "tokenize", str(recipe), "--data", data, "--tokenizer", model, "--out", tokens, *beam,
        ),
    }  # fmt: skip
    used = {}
    for name, arguments in stages.items():
        usage = run_and_watch([sys.executable, "-m", "pipelines", *arguments, "--quiet"])
        used[name] = {
            "wall_s": round(usage.wall_s, 1),
            "cpu_s": round(usage.cpu_s, 1),
            "peak_rss_mb": round(usage.peak_rss_mb),
        }
        if name == "curate":
            path.unlink()  # the disk is needed for what comes
            shutil.rmtree(Path(data) / WORK, ignore_errors=True)
    total = {key: sum(stage[key] for stage in used.values()) for key in ("wall_s", "cpu_s")}
    return {
        "gb": round(size / 1e9, 3),
        **{key: round(value, 1) for key, value in total.items()},
        "cpu_s_per_gb": round(total["cpu_s"] / size * 1e9, 1),
        "peak_rss_mb": max(stage["peak_rss_mb"] for stage in used.values()),
        "making_the_text_s": round(making, 1),
        "stages": used,
    }


def linearity(curve: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a further GB costs from the second size to the third over from first to second.

    1 is linear; a fixed cost (start, training of a tokenizer on a sample) changes nothing. `rss` is
    the largest size's peak over the smallest's.
    """
    (small, middle, large) = curve

    def slope(key: str, first: dict[str, Any], last: dict[str, Any]) -> float:
        return float((last[key] - first[key]) / (last["gb"] - first["gb"]))

    ratios = {
        key: round(slope(key, middle, large) / slope(key, small, middle), 3)
        for key in ("wall_s", "cpu_s")
    }
    for stage in ("curate", "tokenize"):
        points = [{"gb": point["gb"], **point["stages"][stage]} for point in curve]
        first, last = slope("cpu_s", *points[:2]), slope("cpu_s", *points[1:])
        ratios[f"{stage}_cpu_s"] = round(last / first, 3)
    return {**ratios, "rss": round(large["peak_rss_mb"] / small["peak_rss_mb"], 2)}


def write_made(path: Path, n_bytes: int) -> int:
    """Write slices of real text and edited copies; return the size."""
    text, _ = pool(20_000_000)
    with path.open("wb") as file:
        for line in made_lines(text):
            file.write(line)
            if file.tell() >= n_bytes:
                break
        return file.tell()


def made_lines(text: str) -> Iterator[bytes]:
    """Yield records without end, each chunk with a seed of its own."""
    number = seed = 0
    while True:
        seed += 1
        for document in documents(text, CHUNK_DOCUMENTS, seed=seed):
            number += 1
            yield json.dumps({"id": str(number), "text": document}).encode() + b"\n"
