"""The curate job from recipe to committed dataset: hash, scan, resolve, write, commit."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from dedup.bands import banding
from pipelines import files, worker
from pipelines.beam import beam
from pipelines.commit import WORK, commit, current, own_output, read_dataset, run_facts, uncommit
from pipelines.curate import fragments
from pipelines.curate.against import find_earlier
from pipelines.curate.evaluation import find_evaluation, identity, set_stats
from pipelines.curate.hash_cache import HashedFile, changed_since, committed_records
from pipelines.curate.importance import resolve_importance
from pipelines.curate.inputs import check_apart, find_inputs, hash_inputs, plain_hashes, stamps
from pipelines.curate.numbers import numbers
from pipelines.curate.plan import input_entries, make_plan
from pipelines.curate.reconcile import add_counts, reconcile
from pipelines.curate.reference import model_files, resolve_reference
from pipelines.curate.repeats import (
    RepeatsContext,
    build_merge,
    build_tabulate,
    finish_step,
    step_stands,
)
from pipelines.curate.resolve import resolve_steps
from pipelines.curate.resolved import ResolveContext, ResolveSummary, read_summary
from pipelines.curate.scan import ScanContext, ScanRanges, with_fragments
from pipelines.curate.stats import merge_stats
from pipelines.curate.write import ShardResult, WriteContext, WriteShards, read_result
from pipelines.progress import progress_folder, show_progress
from pipelines.quality import list_files
from pipelines.recipe import CurateRecipe, definitions, hashed_recipe
from pipelines.runners import JobOptions, run_pipeline
from shards.console import console
from shards.errors import AssayError, InputError, ReconcileError
from shards.hashing import stable_hash
from shards.manifest import Content, Counts, Manifest, new_manifest

_UNITS = {"verify": "pairs"}
"""What a step of the resolve stage counts, where it is not rows."""


def curate(recipe: CurateRecipe, out: str, options: JobOptions) -> tuple[Manifest, bool]:
    """Run the curate job, or return the dataset that is already there for the same key.

    Returns:
        The manifest, and whether the job had to run.

    Raises:
        InputError: an input is missing, empty, of unknown format, inside `out`, or changes
            meanwhile.
        ReconcileError: counts that do not add up; nothing is committed.
        DatasetError: `out` is a folder with something else in it.
        PlatformError: another job is writing to `out`, or a worker died.
    """
    found = find_inputs(recipe)
    check_apart(found, out)
    if options.runner.workers > 1:
        worker.warm(__name__)  # it imports while the inputs are hashed
    with own_output(out, "documents", keep_work=options.keep_work):
        return _curate(found, recipe, out, options)


def _curate(
    found: list[tuple[str, int]], recipe: CurateRecipe, out: str, options: JobOptions
) -> tuple[Manifest, bool]:
    started = time.time()
    before, lists = stamps(path for path, _ in found), stamps(list_files(recipe.signals))
    asked = recipe
    wanted = dict(found) | dict(model_files(recipe))
    hashed = hash_inputs(list(wanted.items()), out, options, _committed(out))
    recipe = resolve_importance(resolve_reference(recipe, out, hashed), out, hashed)
    evaluation = find_evaluation(recipe.dedup.contamination)
    stated = definitions(recipe.signals)
    earlier = find_earlier(recipe.dedup, stated)
    inputs = plain_hashes({path: hashed[path] for path, _ in found})
    plan = make_plan(inputs, recipe, options.range_bytes, evaluation, earlier)
    if done := current(out, plan.stage_key):
        return done, False
    bands, rows = banding(recipe.dedup.near) if recipe.dedup.near.enabled else (0, 0)
    work = files.join(out, WORK, plan.scan_key)
    scan = ScanContext(
        plan,
        recipe,
        bands,
        rows,
        work,
        progress_folder(out, "scan"),
        evaluation,
        earlier,
        stamps=before,
        list_stamps=lists,
    )
    sets = set_stats(evaluation, recipe.dedup.contamination)
    scan, infos = _scan(scan, options)
    _check_unchanged(before | lists, work)
    _check_definitions(stated, recipe, work)
    summary, resolved = _resolve(scan, infos, out, options)
    _find_repeats(RepeatsContext(scan, resolved, progress_folder(out, "repeats")), options)
    results = _write(scan, infos, resolved, out, options)
    manifest = new_manifest(
        _content(scan, infos, results, {**msgspec.to_builtins(summary), "evaluation": sets}),
        stage_key=plan.stage_key,
        run=run_facts(
            started,
            options,
            paths=[item.path for item in plan.inputs],
            recipe=_with_paths(asked, [path for path, _ in found]),
            hashed=msgspec.to_builtins(hashed),
        ),
    )
    commit(out, manifest)
    return manifest, True


def _committed(out: str) -> dict[str, HashedFile]:
    """Return what an earlier dataset in `out` says of its input files; an unusable one, nothing."""
    try:
        return committed_records(read_dataset(out).run)
    except AssayError:
        return {}


def _with_paths(recipe: CurateRecipe, paths: list[str]) -> dict[str, Any]:
    """Return the recipe as it was asked for, with the files that its patterns matched."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    plain["input"]["paths"] = paths
    return plain


def _check_unchanged(before: dict[str, tuple[int, int, int]], work: str) -> None:
    """Refuse fragments of a file that was written to between its hash and its scan."""
    changed = changed_since(before)
    if changed:
        files.delete(work)  # or a later run would trust it
        raise InputError(changed)


def _check_definitions(stated: dict[str, str], recipe: CurateRecipe, work: str) -> None:
    """Refuse fragments that were measured while a list or a model was written to."""
    now = definitions(recipe.signals)
    changed = [name for name in sorted(stated) if stated[name] != now.get(name)]
    if changed:
        files.delete(work)  # or a later run would trust it
        raise InputError(
            f"signals: {', '.join(changed)}: its file was changed while it was in use; run again"
        )


def _stage(
    label: str,
    total: int,
    progress: str,
    options: JobOptions,
    build: Callable[[Any], None],
    *,
    unit: str = "documents",
) -> None:
    with show_progress(
        label, total, progress, unit=unit, quiet=options.quiet, events=options.events
    ):
        run_pipeline(options.runner, build, label=label)


def _scan(
    context: ScanContext, options: JobOptions
) -> tuple[ScanContext, list[fragments.FragmentInfo]]:
    """Make the fragments; return the context that knows them, and their sidecars."""
    plan = context.plan
    if len(plan.ranges) < options.runner.workers and not options.quiet:
        console.print(
            f"note: {len(plan.ranges)} range(s) for {options.runner.workers} workers: gzip and"
            " one-frame zstd cannot be split; more files or a smaller --range-mb would help"
        )

    def build(pipeline: Any) -> None:
        _ = numbers(pipeline, "ranges", len(plan.ranges)) | "scan" >> beam.ParDo(
            ScanRanges(context)
        )

    total = sum(span.bytes for span in plan.ranges)
    _stage("scan", total, context.progress, options, build)
    context, infos = finished_scan(context)
    if not sum(info.rows for info in infos):
        names = ", ".join(item.path for item in plan.inputs[:3])
        raise InputError(f"{names}: no records in {len(plan.inputs)} input file(s)")
    return context, infos


def finished_scan(context: ScanContext) -> tuple[ScanContext, list[fragments.FragmentInfo]]:
    """Return the context with the fragments that the scan has left, and their sidecars.

    The worker that made a fragment, or took up one of an earlier run, has hashed it: here only
    sizes are looked at.

    Raises:
        ReconcileError: a range has left none, or not all.
    """
    parts: list[fragments.Part] = []
    infos: list[fragments.FragmentInfo] = []
    for index, span in enumerate(context.plan.ranges):
        found, whole = fragments.read_parts(context.work, context.plan, index, verify=False)
        if not whole:
            raise ReconcileError(
                f"scan ended but bytes {span.start}-{span.end} of {span.path} left no fragment:"
                " the runner lost an element; run again and only the missing ones are made"
            )
        parts += [fragments.Part(index, part) for part in range(len(found))]
        infos += found
    return with_fragments(context, parts), infos


def expected_rows(scan: ScanContext, infos: list[fragments.FragmentInfo]) -> int:
    """Return how many hash rows the resolve stage must see, or the runner lost some."""
    exact = scan.recipe.dedup.exact.enabled
    counts = [(info.banded, info.readable) for info in infos]
    return sum(
        banded * scan.bands + (readable if exact else banded)
        for banded, readable in [*counts, (scan.earlier.banded, scan.earlier.readable)]
    )


def _resolve(
    scan: ScanContext, infos: list[fragments.FragmentInfo], out: str, options: JobOptions
) -> tuple[ResolveSummary, str]:
    key = stable_hash(
        msgspec.to_builtins(
            [scan.recipe.dedup, scan.recipe.filters, [item.order for item in scan.plan.inputs]]
        )
    )
    context = ResolveContext(
        scan,
        files.join(scan.work, f"resolved-{key}"),
        expected_rows(scan, infos),
        progress_folder(out, "resolve"),
    )
    # A cluster's shuffle is not held in one machine's memory: there, all is grouped at once.
    most_rows = 0 if options.runner.runner else None
    alone = _in_process(options)
    for label, build in resolve_steps(context, most_rows):
        how = alone if label.startswith("pair") else options
        _stage(label, 0, context.progress, how, build, unit=_UNITS.get(label, "rows"))
    summary = read_summary(context)
    if summary is None:
        raise ReconcileError(
            "resolve ended but left no summary: the runner lost an element; run again"
        )
    return summary, context.folder


def _in_process(options: JobOptions) -> JobOptions:
    """Return the options of a stage that is little else than grouping.

    Beam groups in this process whatever `--workers` is, and what the workers send it costs it as
    much CPU as the whole stage does in process (2.0 s for 2.4 M rows, where two workers end it
    after 3.0 s and take 2.1 s of CPU more).
    """
    if options.runner.runner:
        return options  # a cluster's shuffle
    return msgspec.structs.replace(
        options, runner=msgspec.structs.replace(options.runner, workers=1)
    )


def _find_repeats(context: RepeatsContext, options: JobOptions) -> None:
    """Make the tables of repeated text, where the recipe asks for them."""
    for step in context.steps:
        if not step_stands(context, step):
            for label, build in (("find", build_tabulate), ("merge", build_merge)):
                own = partial(build, context=context, step=step)
                _stage(f"{label}-{step}", 0, context.progress, options, own)
            finish_step(context, step)


def _write(
    scan: ScanContext,
    infos: list[fragments.FragmentInfo],
    resolved: str,
    out: str,
    options: JobOptions,
) -> list[ShardResult]:
    key = stable_hash(msgspec.to_builtins([scan.recipe.split, scan.recipe.output]))
    results = files.join(resolved, f"written-{key}")
    context = WriteContext(scan, resolved, out, results, progress_folder(out, "write"))
    uncommit(out)  # from here on the folder is not the old dataset any more

    def build(pipeline: Any) -> None:
        _ = numbers(pipeline, "shards", scan.plan.shards) | "write" >> beam.ParDo(
            WriteShards(context)
        )

    total = sum(count.bytes_read for info in infos for count in info.sources.values())
    _stage("write", total, context.progress, options, build)
    written = [read_result(context, shard, verify=False) for shard in range(scan.plan.shards)]
    for shard, result in enumerate(written):
        if result is None:
            raise ReconcileError(
                f"write ended but shard {shard} of {scan.plan.shards} is missing or damaged:"
                " run again and only the missing ones are made"
            )
    return [result for result in written if result is not None]


def _check_bytes(total: Counts, stats: dict[str, Any]) -> None:
    """Check that the bytes read are those kept, dropped and cut."""
    cut = stats.get("repeats", {}).get("bytes", 0)
    kept, dropped = stats["bytes"]["kept"], stats["bytes"]["dropped"]
    if kept != total.bytes_kept or kept + dropped + cut != total.bytes_read:
        raise ReconcileError(
            f"{total.bytes_read} bytes read ≠ {kept} kept + {dropped} dropped + {cut} cut;"
            " nothing was committed"
        )


def _content(
    scan: ScanContext,
    infos: list[fragments.FragmentInfo],
    results: list[ShardResult],
    facts: dict[str, Any],
) -> Content:
    plain = hashed_recipe(scan.recipe)
    plain["dedup"]["contamination"]["sets"] = identity(scan.evaluation)
    sources = add_counts(result.sources for result in results)
    total = reconcile(add_counts(info.sources for info in infos), sources)
    stats = merge_stats(result.stats for result in results)
    _check_bytes(total, stats)
    shards = {
        "kept": [result.kept for result in results],
        "dropped": [result.dropped for result in results],
        "spans": [result.spans for result in results if result.spans],
        "index": [result.index for result in results if result.index],
    }
    return Content(
        kind="documents",
        shards={role: entries for role, entries in shards.items() if entries},
        total=total,
        sources=dict(sorted(sources.items())),
        inputs=input_entries(scan.plan.inputs),
        parents=scan.earlier.datasets,
        recipe=plain,
        definitions=definitions(
            scan.recipe.signals, web=any(span.format == "warc" for span in scan.plan.ranges)
        ),
        stats={**stats, **facts},
    )
