"""The curate job at scale: Beam against a plain loop, workers, memory, and one id for all of them.

    python -m benchmarks.pipeline [--quick | --gb 10]

The corpus is the development corpus beside the repository where it is there, else slices of the
standard library's docstrings with edited copies; `--gb` always makes slices and copies. Printed
last, as one JSON object:

- `mb_per_cpu_s`: MB of text that a second of CPU takes through the whole job in process;
- `overhead_ratio`: CPU that another MB costs that job, over what it costs the same DoFns called in
  a plain loop (medians of runs that take turns in one process);
- `speedup_2_workers`: wall time that another MB costs one process, over what it costs two workers;
- `fixed_s`: what does not grow with the corpus and the three figures above leave out: CPU seconds
  of Beam's four pipelines, and wall seconds of the start of a command with 1 and 2 workers;
- `speedup_2_workers_whole`: the ratio of whole commands on the large corpus;
- `peak_rss_mb`: largest sum of resident memory over the processes of a command, pages that they
  share counted in each;
- `ids`: dataset ids of every run over the same corpus, which must all be equal.

`--gb N` writes the scale curve (`benchmarks.pipeline_scale`): wall and CPU seconds and peak memory
of the whole chain, tokenizer and tokenize too, at 0.06 N, N/4 and N GB. It needs 2.7 N GB of disk.
"""

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.corpus import CORPUS
from benchmarks.pipeline_loop import curate_in_a_loop
from benchmarks.pipeline_scale import scale_curve, write_made
from benchmarks.processes import Usage, run_and_watch
from pipelines.curate.job import curate
from pipelines.recipe import CurateRecipe, curate_recipe
from pipelines.runners import JobOptions
from shards.manifest import read_manifest

RANGE_MB = "4"
SHARD_BYTES = 16 << 20
"""An eighth of the defaults: with those, the larger of these corpora have three ranges and one
shard, and a second worker nothing to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 55 s on 2 cores")
    parser.add_argument("--gb", type=float, help="write the scale curve up to this size")
    parser.add_argument("--workers", type=int, default=2, help="of the scale curve")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(tempfile.gettempdir()) / "assay-scale.json",
        help="sizes of the scale curve that are done; delete it to run them again",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.gb:
            scale = root / "scale"
            print(json.dumps(scale_curve(scale, options.gb, options.state, options.workers)))
            return
        sizes = (4, 24, 80) if options.quick else (16, 100, 217)
        print(json.dumps(compare(root, sizes, 2 if options.quick else 7)))


def compare(root: Path, sizes_mb: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Run the job in every way on a small, a middle and a large corpus."""
    small, middle, large = (write_lines(root / f"{mb}.jsonl", mb * 10**6) for mb in sizes_mb)
    mb = {path: path.stat().st_size / 1e6 for path in (small, middle, large)}
    little, ids = beam_and_loop(root, small, repeats)
    much, more_ids = beam_and_loop(root, middle, repeats)
    per_mb = {name: (much[name] - little[name]) / (mb[middle] - mb[small]) for name in much}
    runs = {
        (path, workers): command(root, path, workers)
        for workers in (1, 2)
        for path in (small, large)
    }
    wall = {key: run.usage.wall_s for key, run in runs.items()}
    slope = {
        workers: (wall[large, workers] - wall[small, workers]) / (mb[large] - mb[small])
        for workers in (1, 2)
    }
    ids += [runs[small, workers].dataset_id for workers in (1, 2)]
    ids.append(command(root, small, 3).dataset_id)
    large_ids = [runs[large, workers].dataset_id for workers in (1, 2)]
    return {
        "mb": [round(size) for size in mb.values()],
        "mb_per_cpu_s": round(1 / per_mb["beam"], 1),
        "overhead_ratio": round(per_mb["beam"] / per_mb["loop"], 3),
        "speedup_2_workers": round(slope[1] / slope[2], 2),
        "speedup_2_workers_whole": round(wall[large, 1] / wall[large, 2], 2),
        "fixed_s": {
            "beam_cpu": round(little["beam"] - little["loop"], 2),
            **{
                f"start_{workers}": round(wall[small, workers] - mb[small] * slope[workers], 1)
                for workers in (1, 2)
            },
        },
        "peak_rss_mb": round(max(run.usage.peak_rss_mb for run in runs.values())),
        "ids": ids,
        "ids_equal": all(len(set(group)) == 1 for group in (ids, more_ids, large_ids)),
    }


def beam_and_loop(root: Path, path: Path, repeats: int) -> tuple[dict[str, float], list[str]]:
    """Return median CPU seconds with Beam and in a plain loop, and the ids they gave."""
    recipe = recipe_for(path)
    times: dict[str, list[float]] = {"beam": [], "loop": []}
    ids = []
    for turn in range(repeats + 1):
        for name, seconds in times.items():
            out = root / f"{name}-{turn}"
            start = time.process_time()
            if name == "loop":
                ids.append(curate_in_a_loop(recipe, str(out)))
            else:
                ids.append(curate(recipe, str(out), JobOptions(quiet=True))[0].dataset_id)
            seconds.append(time.process_time() - start)
            shutil.rmtree(out)
    small_ranges = JobOptions(quiet=True, range_bytes=3 << 20)
    ids.append(curate(recipe, str(root / "ranges"), small_ranges)[0].dataset_id)
    shutil.rmtree(root / "ranges")
    # The first turn loads the kernels.
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}, ids


class Run:
    """A finished `assay curate` command: what it used and the id it left."""

    def __init__(self, usage: Usage, dataset_id: str) -> None:
        self.usage = usage
        self.dataset_id = dataset_id


def command(root: Path, path: Path, workers: int) -> Run:
    """Run `assay curate` as a user does, in processes of its own."""
    recipe = root / "recipe.toml"
    recipe.write_text(f'[filters]\npresets = ["gopher"]\n[output]\nshard_bytes = {SHARD_BYTES}\n')
    out = root / f"{path.stem}-{workers}"
    usage = run_and_watch(
        [
            sys.executable, "-m", "pipelines", "curate", str(recipe), "--quiet", "--out", str(out),
            "--workers", str(workers), "--range-mb", RANGE_MB,
            "--set", f"input.paths={json.dumps([str(path)])}",
        ]
    )  # fmt: skip
    dataset_id = read_manifest(out).dataset_id
    shutil.rmtree(out)
    return Run(usage, dataset_id)


def recipe_for(path: Path) -> CurateRecipe:
    return curate_recipe(
        {
            "input": {"paths": [str(path)]},
            "filters": {"presets": ["gopher"]},
            "output": {"shard_bytes": SHARD_BYTES},
        }
    )


def write_lines(path: Path, n_bytes: int) -> Path:
    """Write whole records up to `n_bytes`."""
    if not CORPUS.exists():
        write_made(path, n_bytes)
        return path
    with zstandard.open(CORPUS, "rb") as source, path.open("wb") as target:
        for line in io.BufferedReader(source):
            if target.tell() + len(line) > n_bytes:
                break
            target.write(line)
    return path


if __name__ == "__main__":
    main()
