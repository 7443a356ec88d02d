"""What an interrupted job has left is taken up as it was written, or made again: never used broken.

That each format notices every damage is shown in `test_sidecars`, `test_files` and `test_pairs`;
here that each file of each stage has one of these formats.
"""

import shutil
from collections import defaultdict

import pytest

from pipelines.curate import job, resolve, resolved
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from tests.pipelines.conftest import make_documents, write_jsonl
from tests.pipelines.damage import some_damage

ALONE, ROUNDS = resolved.MOST_EDGES, 0

STOPS = [
    (ALONE, "pair", {"contexts", "fragments.arrow", "fragments.json", "inputs"}),
    (ALONE, "verify", {"pairs"}),
    (ALONE, "Decide", {"edges", "nodes", "verified"}),
    (ROUNDS, "contract-2", {"graph", "round"}),
    (ALONE, "find-anchors", {"decisions", "summary"}),
    (ALONE, "write", {"table", "done"}),
    (ALONE, "commit", {"shard", "parquet"}),
]
"""Edges that one worker decides about, what the job is stopped before, and what it then has."""


def kind_of(path):
    folder = path.parent.name
    if folder == "fragments":
        return f"fragments{path.suffix}"
    if folder in {"contexts", "inputs"}:
        return folder
    return "parquet" if path.suffix == ".parquet" else path.stem.split("-")[0]


def stop_before(patch, what):
    def stop(*_, **__):
        raise KeyboardInterrupt

    def stage(label, *arguments, **options):
        return (stop if label == what else real)(label, *arguments, **options)

    real = job._stage
    patch.setattr(job, "_stage", stage)
    if what == "commit":
        patch.setattr(job, "commit", stop)
    if what == "Decide":
        patch.setattr(resolve.Decide, "process", stop)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the inputs, and the id of their dataset."""
    folder = tmp_path_factory.mktemp("damage")
    write_jsonl(folder / "one.jsonl", make_documents(24, seed=1))
    write_jsonl(folder / "two.jsonl", make_documents(12, seed=2))
    return folder, run(folder / "whole", folder)


def run(out, inputs):
    tables = {
        "filters": {"presets": ["gopher"]},
        "dedup": {"repeats": {"unit": "substring", "words": 5}},
        "output": {"shard_bytes": 1 << 16},
    }
    recipe = curate_recipe({"input": {"paths": [str(inputs / "*.jsonl")]}, **tables})
    options = JobOptions(range_bytes=20_000, quiet=True)
    return curate(recipe, str(out), options)[0].dataset_id


@pytest.mark.parametrize(("edges", "stop", "kinds"), STOPS, ids=[stop for _, stop, _ in STOPS])
def test_damaged_work_is_made_again(undisturbed, tmp_path, monkeypatch, edges, stop, kinds):
    inputs, whole = undisturbed
    monkeypatch.setattr(resolved, "LEAST_BUCKETS", 2)
    monkeypatch.setattr(resolved, "MOST_EDGES", edges)
    with monkeypatch.context() as patch:
        stop_before(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "left", inputs)
    found = defaultdict(list)
    for path in sorted((tmp_path / "left").rglob("*")):
        if path.is_file():
            found[kind_of(path)].append(path.relative_to(tmp_path / "left"))
    assert kinds <= found.keys()
    for kind in sorted(kinds):
        out = tmp_path / kind
        shutil.copytree(tmp_path / "left", out)
        for seed, name in enumerate(found[kind]):
            (out / name).write_bytes(some_damage((out / name).read_bytes(), seed))
        assert run(out, inputs) == whole, kind
