"""One dataset, however it was made: workers, passes, parts, repeated bundles, kills."""

import gzip
import json
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from pipelines.curate import fragments, resolve, resolved, scan
from pipelines.curate.job import curate
from pipelines.readers import read_range
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions, RunnerOptions

ALONE = RunnerOptions()
RANGE_BYTES = 5_000
TABLES = {
    "filters": {"presets": ["gopher"]},
    "split": {"valid_fraction": 0.2},
    "output": {"shard_bytes": 1 << 16},
}


def run(out, *paths, runner=ALONE, range_bytes=RANGE_BYTES):
    recipe = curate_recipe({"input": {"paths": [str(path) for path in paths]}, **TABLES})
    options = JobOptions(runner, range_bytes=range_bytes, keep_work=True, quiet=True)
    return curate(recipe, str(out), options)[0].dataset_id


def made(out, pattern):
    return {path: path.stat().st_mtime_ns for path in out.rglob(pattern)}


def names(out, pattern):
    return {path.name for path in made(out, pattern)}


@pytest.mark.parametrize(
    "runner",
    [
        RunnerOptions(workers=2),
        RunnerOptions(workers=3),
        RunnerOptions(beam_args=("--direct_runner_bundle_repeat=1",)),
    ],
    ids=["two workers", "three workers", "every bundle twice"],
)
def test_runners(corpus, tmp_path, runner):
    alone = run(tmp_path / "alone", corpus / "*", range_bytes=1 << 20)
    assert run(tmp_path / "out", corpus / "*", runner=runner) == alone


def test_passes_and_chunks(corpus, tmp_path, monkeypatch):
    once = run(tmp_path / "once", corpus / "*")
    labels = []
    real = resolve.resolve_steps

    def steps(context, most_rows):
        for label, build in real(context, 400):
            labels.append(label)
            yield label, build

    monkeypatch.setattr("pipelines.curate.job.resolve_steps", steps)
    monkeypatch.setattr(resolve, "CHUNK_BYTES", 2_000)
    assert run(tmp_path / "many", corpus / "*") == once
    assert len(labels) > 4
    assert labels == [*(f"pair-{number}" for number in range(1, len(labels))), "verify"]


def test_more_buckets(corpus, tmp_path, monkeypatch):
    once = run(tmp_path / "once", corpus / "*")
    monkeypatch.setattr(resolved, "BUCKET_ROWS", 5)
    monkeypatch.setattr(resolved, "MOST_PARTITIONS", 3)
    monkeypatch.setattr(resolved, "MOST_EDGES", 0)
    assert run(tmp_path / "many", corpus / "*", range_bytes=2_000) == once
    pairs = list((tmp_path / "many").rglob("graph-*/pairs-*"))
    assert len(pairs) >= 2 * 128


@pytest.fixture
def long_file(corpus, monkeypatch):
    """A gzip file, of which a fragment holds a few records."""
    lines = (corpus / "one.jsonl").read_bytes()
    (corpus / "long.jsonl.gz").write_bytes(gzip.compress(lines))
    whole = run(corpus.parent / "whole", corpus / "long.jsonl.gz")
    assert len(names(corpus.parent / "whole", "fragments/*.arrow")) == 1
    monkeypatch.setattr(scan, "read_range", partial(read_range, batch_bytes=3_000))
    monkeypatch.setattr(scan, "PART_BYTES", 6_000)
    return corpus / "long.jsonl.gz", whole


def test_a_file_that_can_not_be_split_becomes_several_fragments(long_file, tmp_path):
    path, whole = long_file
    assert run(tmp_path / "parts", path) == whole
    sizes = [part.stat().st_size for part in made(tmp_path / "parts", "fragments/*.arrow")]
    assert len(sizes) > 4
    (alone,) = made(tmp_path / "whole", "fragments/*.arrow")
    assert max(sizes) < alone.stat().st_size


def test_parts_of_a_killed_scan_are_not_made_again(long_file, tmp_path, monkeypatch):
    path, whole = long_file
    real = fragments.write_fragment

    def die_later(place, data, info):
        if len(names(tmp_path / "parts", "fragments/*.json")) == 3:
            raise KeyboardInterrupt
        real(place, data, info)

    monkeypatch.setattr(fragments, "write_fragment", die_later)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", path)
    monkeypatch.setattr(fragments, "write_fragment", real)
    before = made(tmp_path / "parts", "fragments/*.arrow")
    assert len(before) == 3
    assert run(tmp_path / "parts", path) == whole
    after = made(tmp_path / "parts", "fragments/*.arrow")
    assert len(after) > 3
    assert before.items() <= after.items()


def test_a_job_that_was_killed_takes_up_what_it_hashed(corpus, tmp_path):
    whole = run(tmp_path / "whole", corpus / "*", range_bytes=1_000)
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    tables = "".join(
        f"[{name}]\n{key} = {json.dumps(value)}\n"
        for name, table in {"input": {"paths": [str(corpus / "*")]}, **TABLES}.items()
        for key, value in table.items()
    )
    recipe.write_text(tables)
    words = ["curate", str(recipe), "--out", str(out), "--range-mb", "0.001", "--quiet"]
    job = subprocess.Popen([sys.executable, "-m", "pipelines", *words])
    while not list(out.rglob("fragments/*.arrow.json")) and job.poll() is None:
        time.sleep(0.001)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    before = {path for path in made(out, "fragments/*.arrow.json") if path.is_file()}
    times = {path: path.with_suffix("").stat().st_mtime_ns for path in before}
    assert times
    assert run(out, corpus / "*", range_bytes=1_000) == whole
    assert all(path.with_suffix("").stat().st_mtime_ns == time for path, time in times.items())


def test_a_damaged_sidecar_means_that_the_fragment_is_made_again(corpus, tmp_path):
    once = run(tmp_path / "out", corpus / "*", range_bytes=20_000)
    for path in (tmp_path / "out").rglob("fragments/*.json"):
        path.write_text("{broken")
    (tmp_path / "out" / "manifest.json").unlink()
    assert run(tmp_path / "out", corpus / "*", range_bytes=20_000) == once
