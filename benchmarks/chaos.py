"""Kill the jobs with SIGKILL at random moments, run them again, and look what is left.

    python -m benchmarks.chaos [--kills 100] [--seed 1] [--mb 8]

The stages are curate (in process and with 2 workers), tokenizer and tokenize. Each is first run
undisturbed, for its id and its time; then it is killed with its whole process group at a moment
drawn from that time, run again, and so on until it ends, and the folder is thrown away. Printed
last, as one JSON object: `kills`; `same_id`, whether every end had the undisturbed id; `lost`,
documents that an end counted fewer than the undisturbed run; `litter`, files that are left after
`assay gc` and that no manifest lists.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pipeline import write_lines
from pipelines.commit import collect_garbage
from shards.manifest import read_manifest

MOST_KILLS = 5
"""Kills after which a run is let through; a tokenizer is trained in one piece and cannot resume."""

PROGRAM = (sys.executable, "-m", "pipelines")


class Stage(NamedTuple):
    """A command, its output folder, and how to read an id and a number of documents from it."""

    name: str
    arguments: tuple[str, ...]
    out: Path
    result: Callable[[Path], tuple[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mb", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(chaos(Path(folder), options.kills, options.seed, options.mb)))


def chaos(root: Path, kills: int, seed: int, mb: int) -> dict[str, Any]:
    """Kill stages in turn until there were `kills` kills."""
    rng = random.Random(seed)
    made = stages(root, write_lines(root / "in.jsonl", mb * 10**6))
    truth, seconds = {}, {}
    for stage in made:
        start = time.monotonic()
        subprocess.run([*PROGRAM, *stage.arguments], check=True, stdout=subprocess.DEVNULL)
        seconds[stage.name] = time.monotonic() - start
        truth[stage.name] = stage.result(stage.out)
    counts = {stage.name: 0 for stage in made}
    same, lost, litter = True, 0, 0
    for stage in cycle(made):
        if sum(counts.values()) >= kills:
            break
        mine = stage._replace(out=root / "chaos", arguments=redirect(stage, root / "chaos"))
        counts[stage.name] += until_it_ends(mine, seconds[stage.name], rng)
        found = stage.result(mine.out)
        same = same and found[0] == truth[stage.name][0]
        lost += truth[stage.name][1] - found[1]
        litter += left_over(mine.out)
        shutil.rmtree(mine.out)
        print(f"{stage.name}: {counts[stage.name]} kills, same id: {same}", file=sys.stderr)
    return {
        "kills": sum(counts.values()),
        "same_id": same,
        "lost": lost,
        "litter": litter,
        "by_stage": counts,
    }


def stages(root: Path, corpus: Path) -> list[Stage]:
    """Return the stages; each but the first two reads what an undisturbed one has left."""
    recipe = root / "recipe.toml"
    recipe.write_text(
        f"[input]\npaths = [{json.dumps(str(corpus))}]\n[filters]\npresets = ['gopher']\n"
        "[output]\nshard_bytes = 1_000_000\n[tokenizer]\nvocab_size = 2000\n"
    )
    data, model, tokens = root / "curated", root / "tokenizer", root / "tokens"
    first = ("curate", str(recipe), "--quiet", "--range-mb", "1", "--out")
    trained = ("tokenizer", "train", str(recipe), "--data", str(data), "--quiet", "--out")
    encoded = ("tokenize", str(recipe), "--data", str(data), "--tokenizer", str(model), "--quiet")
    two = root / "curated2"
    return [
        Stage("curate", (*first, str(data)), data, dataset),
        Stage("curate with 2 workers", (*first, str(two), "--workers", "2"), two, dataset),
        Stage("tokenizer", (*trained, str(model)), model, tokenizer),
        Stage("tokenize", (*encoded, "--out", str(tokens)), tokens, dataset),
    ]


def redirect(stage: Stage, out: Path) -> tuple[str, ...]:
    return tuple(str(out) if word == str(stage.out) else word for word in stage.arguments)


def dataset(folder: Path) -> tuple[str, int]:
    manifest = read_manifest(folder)
    return manifest.dataset_id, manifest.content.total.read


def tokenizer(folder: Path) -> tuple[str, int]:
    return json.loads((folder / "tokenizer.json").read_text())["pieces_hash"], 0


def until_it_ends(stage: Stage, seconds: float, rng: random.Random) -> int:
    """Run a stage again and again, killing it, until a run is faster than its kill or is spared."""
    kills = 0
    while True:
        spared = kills == MOST_KILLS
        process = subprocess.Popen(
            [*PROGRAM, *stage.arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            moment = None if spared else rng.uniform(0.2, 1.1) * seconds
            _, said = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        if process.returncode:
            raise RuntimeError(f"{stage.name} failed after {kills} kills: {said.decode()}")
        return kills


def left_over(out: Path) -> int:
    """Count files that are neither a dataset's nor a tokenizer's own, after `assay gc`."""
    if not (out / "manifest.json").exists():
        return sum(".partial-" in path.name for path in out.rglob("*"))
    collect_garbage(str(out))
    shards = read_manifest(out).content.shards
    known = {entry.path for entries in shards.values() for entry in entries} | {"manifest.json"}
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    return len(found - known)


if __name__ == "__main__":
    main()
