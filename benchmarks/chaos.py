"""Kill the jobs with SIGKILL at random moments, run them again, and look what is left.

    python -m benchmarks.chaos [--kills 100] [--seed 1] [--mb 8]

The stages are curate (in process and with 2 workers), tokenizer and tokenize. Each is first run
undisturbed, for its id and its time; then it is killed with its whole process group at a moment
drawn from that time, run again, and so on until it ends, and the folder is thrown away. Printed
last, as one JSON object: `kills`; `same_id`, whether every end had the undisturbed id; `lost`,
documents that an end counted fewer than the undisturbed run; `litter`, files that are left after
`assay gc` and that no manifest lists, and what is left in the temporary folder; `reused`, finished
fragments and shards that a later run left as they were, and `made_again`, those that it did not;
`by_moment`, what was running at each kill.
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
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pipeline import write_lines
from pipelines.commit import collect_garbage
from shards.atomic import is_partial
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
    temporary = root / "temporary"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)  # the jobs' and `assay gc`'s
    made = stages(root, write_lines(root / "in.jsonl", mb * 10**6))
    truth, seconds = {}, {}
    for stage in made:
        process = start(stage)
        wait_until_begun(process, stage.out)
        began = time.monotonic()
        if process.wait():
            raise RuntimeError(f"{stage.name} failed undisturbed")
        seconds[stage.name] = time.monotonic() - began
        truth[stage.name] = stage.result(stage.out)
    tally = Tally()
    same, lost, litter = True, 0, 0
    for stage in cycle(made):
        if sum(tally.by_stage.values()) >= kills:
            break
        mine = stage._replace(out=root / "chaos", arguments=redirect(stage, root / "chaos"))
        until_it_ends(mine, seconds[stage.name], rng, tally)
        found = stage.result(mine.out)
        same = same and found[0] == truth[stage.name][0]
        lost += truth[stage.name][1] - found[1]
        litter += left_over(mine.out) + len(list(temporary.iterdir()))
        shutil.rmtree(mine.out)
        print(f"{dict(tally.by_stage)}, same id: {same}", file=sys.stderr, flush=True)
    return {
        "kills": sum(tally.by_stage.values()),
        "same_id": same,
        "lost": lost,
        "litter": litter,
        "reused": tally.reused,
        "made_again": tally.made_again,
        "by_stage": dict(tally.by_stage),
        "by_moment": dict(sorted(tally.by_moment.items())),
    }


class Tally:
    """Kills by stage and by the pipeline that they hit, and what became of finished work."""

    def __init__(self) -> None:
        self.by_stage: Counter[str] = Counter()
        self.by_moment: Counter[str] = Counter()
        self.reused = 0
        self.made_again = 0

    def compare(self, before: dict[Path, int], out: Path) -> None:
        """Count the finished files of before that a run has left alone, and those it has not."""
        kept = sum(
            path.exists() and path.stat().st_mtime_ns == time for path, time in before.items()
        )
        self.reused += kept
        self.made_again += len(before) - kept


def stages(root: Path, corpus: Path) -> list[Stage]:
    """Return the stages; each but the first two reads what an undisturbed one has left."""
    recipe = root / "recipe.toml"
    recipe.write_text(
        f"[input]\npaths = [{json.dumps(str(corpus))}]\n[filters]\npresets = ['gopher']\n"
        "[output]\nshard_bytes = 500_000\n[tokenizer]\nvocab_size = 2000\n"
    )
    data, model, tokens = root / "curated", root / "tokenizer", root / "tokens"
    first = ("curate", str(recipe), "--quiet", "--keep-work", "--range-mb", "0.5", "--out")
    trained = ("tokenizer", "train", str(recipe), "--data", str(data), "--quiet", "--out")
    encoded = (
        "tokenize",
        str(recipe),
        "--data",
        str(data),
        "--tokenizer",
        str(model),
        "--quiet",
        "--keep-work",
    )
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


def start(stage: Stage) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*PROGRAM, *stage.arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_until_begun(process: "subprocess.Popen[bytes]", out: Path) -> None:
    """Wait until a job holds its output: half of its time is the import of Beam, and no test."""
    while process.poll() is None and not out.exists():
        time.sleep(0.002)


def until_it_ends(stage: Stage, seconds: float, rng: random.Random, tally: Tally) -> None:
    """Run a stage again and again, killing it, until a run is faster than its kill or is spared."""
    kills = 0
    before: dict[Path, int] = {}
    while True:
        process = start(stage)
        wait_until_begun(process, stage.out)
        try:
            moment = None if kills == MOST_KILLS else rng.uniform(0, 1.1) * seconds
            _, said = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            tally.compare(before, stage.out)
            before = finished(stage.out)
            tally.by_stage[stage.name] += 1
            tally.by_moment[hit(stage)] += 1
            continue
        if process.returncode:
            raise RuntimeError(f"{stage.name} failed after {kills} kills: {said.decode()}")
        tally.compare(before, stage.out)
        return


def finished(out: Path) -> dict[Path, int]:
    """Return the fragments and shards that a sidecar says are finished, with their times (ns)."""
    found = [path.with_suffix("") for path in out.rglob("fragments/*.arrow.json")]
    for sidecar in out.rglob("shard-*.json"):
        number = sidecar.stem.removeprefix("shard-")
        found += [
            path
            for path in out.glob(f"*/{number}-of-*")
            if not is_partial(path) and path.stat().st_mtime_ns <= sidecar.stat().st_mtime_ns
        ]
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def hit(stage: Stage) -> str:
    """Return which of a stage's pipelines was running: the one whose progress folder is newest."""
    folders = sorted(stage.out.glob("_work/progress/*"), key=lambda path: path.stat().st_mtime_ns)
    name = stage.arguments[0]
    return f"{name}: {folders[-1].name.rpartition('-')[0]}" if folders else f"{name}: start or end"


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
