"""The curate job's own DoFns, called in a plain loop: what the same work costs without Beam."""

from collections import defaultdict
from typing import Any

import msgspec
import xxhash

from dedup.bands import banding
from pipelines import files
from pipelines.commit import WORK, own_output
from pipelines.curate import job
from pipelines.curate.decide import Decide
from pipelines.curate.inputs import find_inputs
from pipelines.curate.pairs import EmitRows, PairRows, passes
from pipelines.curate.plan import make_plan
from pipelines.curate.resolve import VerifyPairs
from pipelines.curate.resolved import ResolveContext, ResolveSummary, summary_path
from pipelines.curate.scan import ScanContext, ScanRanges
from pipelines.curate.write import WriteContext, WriteShards, read_result
from pipelines.progress import progress_folder
from pipelines.recipe import CurateRecipe
from pipelines.runners import JobOptions
from shards.manifest import dataset_id


def curate_in_a_loop(recipe: CurateRecipe, out: str) -> str:
    """Do the whole job without a runner and return the id that the dataset would have."""
    found = find_inputs(recipe)
    hashed = [
        (path, size, xxhash.xxh3_128_hexdigest(files.read_bytes(path))) for path, size in found
    ]
    plan = make_plan(hashed, recipe, JobOptions().range_bytes)
    bands, rows = banding(recipe.dedup.near)
    with own_output(out, "documents", keep_work=False):
        work = files.join(out, WORK, plan.scan_key)
        scan = ScanContext(plan, recipe, bands, rows, work, progress_folder(out, "scan"))
        _all(ScanRanges(scan), range(len(plan.ranges)))
        scan, infos = job.finished_scan(scan)
        resolved = _resolve(scan, job.expected_rows(scan, infos), out)
        write = WriteContext(
            scan, resolved, out, files.join(resolved, "written"), progress_folder(out, "write")
        )
        _all(WriteShards(write), range(plan.shards))
        results = [read_result(write, shard) for shard in range(plan.shards)]
        encoded = files.read_bytes(summary_path(resolved))
        summary = msgspec.json.decode(encoded, type=ResolveSummary)
        made = [result for result in results if result is not None]
        facts = {**msgspec.to_builtins(summary), "evaluation": {}}
        return dataset_id(job._content(scan, infos, made, facts))


def _resolve(scan: ScanContext, expected_rows: int, out: str) -> str:
    folder = files.join(scan.work, "resolved")
    context = ResolveContext(scan, folder, expected_rows, progress_folder(out, "resolve"))
    (every,) = passes(context, 0)
    buckets = _grouped(
        [(bucket, b"") for bucket in every]
        + _all(EmitRows(context, every), range(len(scan.fragments)))
    )
    _all(PairRows(context), buckets.items())
    everything = _grouped(_all(VerifyPairs(context), range(context.partitions)))
    _all(Decide(context), everything.items())
    return folder


def _all(function: Any, elements: Any) -> list[Any]:
    function.setup()
    return [made for element in elements for made in function.process(element)]


def _grouped(pairs: list[tuple[int, Any]]) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
