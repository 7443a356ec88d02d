"""The score job: a tokens dataset → the same with `lm_bpb`, each document's bits under a model.

The result is a tokens dataset like any other: `assay train --select`, a study's arms, `verify` and
`inspect` need not know about scores, and no text is read again. The token stream is copied, 2 bytes
a token, which is little beside what a model takes to read it.

Its parent stays the documents dataset, to which `doc_id` leads back; the dataset whose rows these
are is in `recipe.score`. Elements are shard numbers, see `pipelines.score_shards`.
"""

import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipelines import files
from pipelines.beam import beam
from pipelines.commit import WORK, commit, current, own_output, read_dataset, run_facts
from pipelines.progress import progress_folder, show_progress
from pipelines.runners import JobOptions, run_pipeline
from pipelines.score_shards import (
    SLICE_TOKENS,
    ScoreContext,
    ScoreResult,
    ScoreShards,
    check_column,
    column_names,
    worker_command,
)
from pipelines.sidecars import read_result
from shards.errors import DatasetError, RecipeError, ReconcileError
from shards.hashing import stable_hash
from shards.manifest import Content, Manifest, ShardEntry, check_files, made_as, new_manifest
from shards.tokens import TokenMetadata

RUN = "run.json"
VERSION = f"windows-3/4-v1 ({SLICE_TOKENS >> 10} Ki tokens a batch)"
"""Of the definition in `trainer.score`: how long documents are cut, and what a batch is."""

Device = Literal["cpu", "cuda"]


class Settings(msgspec.Struct, frozen=True):
    """What of a run's `config` decides a score, beside its weights."""

    sequence_length: Annotated[int, Meta(ge=2)]


class ScoringRun(msgspec.Struct, frozen=True):
    """What a run's record must say so that its model can score."""

    run_key: str
    dataset_id: str
    checkpoint_sha256: str
    device: Device
    config: Settings
    definitions: dict[str, str] = {}
    tokenizer_sha256: str = ""


def score(
    data: str,
    run: str,
    out: str,
    options: JobOptions,
    *,
    column: str = "lm_bpb",
    device: Device | None = None,
    run_data: str | None = None,
) -> tuple[Manifest, bool]:
    """Run the score job, or return the dataset that is already there for the same key.

    Args:
        data: folder of a tokens dataset.
        run: folder of a finished run, on a path that every worker can read.
        out: folder of the scored dataset.
        options: how to run it; changes no byte of the result.
        column: name of the new column, float32.
        device: what the model runs on; None: what it was trained on.
        run_data: the tokens dataset that the run read, where that is not `data`.

    Returns:
        The manifest, and whether the job had to run.

    Raises:
        DatasetError: `data` or `run` is not one, or the two have different tokenizers.
        RecipeError: a column that is there already or cannot be named so; `out` is `data`.
        CorruptError: a shard or the checkpoint does not match its recorded hash.
        TrainingError: the model gives no finite number for a document, or there is no such device.
        ReconcileError: counts that do not add up; nothing is committed.
    """
    started = time.time()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", column):
        raise RecipeError(f"--column {column!r}: write lower-case letters, digits and _")
    if out == data or (files.is_local(out) and Path(out).resolve() == Path(data).resolve()):
        raise RecipeError(f"--out {out}: is the data itself; give another folder")
    parent, record = read_dataset(data), read_run(run)
    if parent.content.kind != "tokens":
        raise DatasetError(
            f"{data}: holds {parent.content.kind}, not tokens; run `assay tokenize` on it with the"
            " run's tokenizer, and score what that makes"
        )
    check_tokenizer(parent, record, data, run, read_dataset(run_data) if run_data else None)
    place = device or record.device
    by = score_facts(record, parent.dataset_id, place)
    key = stable_hash([column, by])
    with own_output(out, "tokens", keep_work=options.keep_work):
        if done := current(out, key):
            return done, False
        if files.is_local(data):
            check_files(data, parent)
        for entry in parent.content.shards["tokens"][:1]:
            check_column(column, column_names(data, entry))
        context = ScoreContext(
            data=data,
            kind=made_as(parent.content),
            out=out,
            entries=parent.content.shards["tokens"],
            tokenizer=_metadata(parent, data),
            column=column,
            command=worker_command(run, place),
            results=files.join(out, WORK, key),
            progress=progress_folder(out, "score"),
        )
        results = _run(context, parent, options)
        manifest = new_manifest(
            _content(parent, column, by, results),
            stage_key=key,
            run=run_facts(
                started, options, **_places(parent), scored=data, run=run, run_data=run_data
            ),
        )
        commit(out, manifest)
    return manifest, True


def score_facts(run: ScoringRun, data: str, device: Device) -> dict[str, Any]:
    """Return all that decides the scores of the dataset `data` (an id) under a run's model."""
    return {
        "data": data,
        "run_key": run.run_key,
        "checkpoint_sha256": run.checkpoint_sha256,
        "sequence_length": run.config.sequence_length,
        "device": device,
        "definition": {"lm_bpb": VERSION, **_of_model(run)},
    }


def read_run(folder: str) -> ScoringRun:
    """Read what a finished run's record says about its model.

    Raises:
        DatasetError: there is no such record.
    """
    path = files.join(folder, RUN)
    if not files.exists(path):
        raise DatasetError(
            f"{folder}: not a finished run (no {RUN}); give the folder of one run: of a study, one"
            " of the folders beside study.json"
        )
    try:
        return msgspec.json.decode(files.read_bytes(path), type=ScoringRun)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a run's record: {error}") from None


def check_tokenizer(
    data: Manifest, run: ScoringRun, where: str, of: str, run_data: Manifest | None
) -> None:
    """Check that the run learned the tokens of the tokenizer that made the data.

    Args:
        data: the dataset to score, in the folder `where`.
        run: the record of the run in the folder `of`.
        run_data: the dataset that the run read, if its folder is known.

    Raises:
        DatasetError: it did not, or what the run read is not known.
    """
    stated = _sha256(data)
    scored = data.content.recipe.get("score", {})
    if run.tokenizer_sha256:
        learned = run.tokenizer_sha256
    elif run.dataset_id in (data.dataset_id, *(by["data"] for by in scored.values())):
        learned = stated  # the data itself, or what it was scored from
    elif run_data is None:
        raise DatasetError(
            f"{of}: learned from dataset {run.dataset_id}, and {where} is {data.dataset_id}: say"
            " with --run-data where that dataset is, so that the tokenizers can be compared"
        )
    elif run_data.dataset_id != run.dataset_id:
        raise DatasetError(
            f"--run-data holds dataset {run_data.dataset_id}, but {of} learned from"
            f" {run.dataset_id}"
        )
    else:
        learned = _sha256(run_data)
    if learned != stated:
        raise DatasetError(
            f"{where}: was made with the tokenizer {stated}, but {of} learned the tokens of"
            f" {learned}: tokenize the documents with the run's tokenizer, and score that"
        )


def _sha256(manifest: Manifest) -> str:
    return str((manifest.content.tokenizer or {}).get("sha256", ""))


def _of_model(run: ScoringRun) -> dict[str, str]:
    """Return the trainer's definitions that decide what a model gives."""
    return {name: run.definitions.get(name, "") for name in ("model", "evaluation")}


def _metadata(manifest: Manifest, where: str) -> TokenMetadata:
    facts = manifest.content.tokenizer or {}
    try:
        return TokenMetadata(facts["sha256"], facts["vocab_size"], facts["eos_id"])
    except KeyError as error:
        raise DatasetError(f"{where}: the manifest's tokenizer does not state {error}") from None


def _places(parent: Manifest) -> dict[str, Any]:
    """Return where the documents and the tokenizer were, for `trace` and `reproduce`."""
    return {name: parent.run[name] for name in ("data", "tokenizer") if name in parent.run}


def _run(context: ScoreContext, parent: Manifest, options: JobOptions) -> list[ScoreResult]:
    numbers = list(range(len(context.entries)))

    def build(pipeline: Any) -> None:
        _ = (
            pipeline
            | "shards" >> beam.Create(numbers, reshuffle=True)
            | "score" >> beam.ParDo(ScoreShards(context))
        )

    size = parent.content.total.bytes_read
    with show_progress("score", size, context.progress, quiet=options.quiet, events=options.events):
        run_pipeline(options.runner, build, label="score")
    results = []
    for shard in numbers:
        result = read_result(context, shard, ScoreResult, verify=False)
        if result is None:
            raise ReconcileError(
                f"score ended but shard {shard} of {len(numbers)} is missing or damaged: run again"
                " and only the missing ones are made"
            )
        results.append(result)
    return results


def _content(
    parent: Manifest, column: str, by: dict[str, Any], results: list[ScoreResult]
) -> Content:
    """Return the parent's content with the scored shards, and where the scores came from."""
    content, entries = parent.content, [result.entry for result in results]
    _check_counts(content.shards["tokens"], results)
    size = sum(result.bytes for result in results)
    bpb = sum(result.bits for result in results) / size if size else 0.0
    scores = content.recipe.get("score", {})
    return msgspec.structs.replace(
        content,
        shards={"tokens": entries},
        recipe=content.recipe | {"score": scores | {column: by}},
        definitions=content.definitions | {"lm_bpb": VERSION},
        stats=content.stats | {"scores": content.stats.get("scores", {}) | {column: bpb}},
    )


def _check_counts(before: list[ShardEntry], results: list[ScoreResult]) -> None:
    for old, result in zip(before, results, strict=True):
        new = result.entry
        if (old.documents, old.tokens) != (result.documents, new.tokens):
            raise ReconcileError(
                f"{old.path}: {old.documents} documents of {old.tokens} tokens went in,"
                f" {result.documents} of {new.tokens} came out; nothing was committed"
            )
