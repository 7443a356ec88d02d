"""The tokenize job: a documents dataset → Arrow token shards, each document checked to come back.

Elements are shard numbers (see `pipelines.token_shards`); text never passes through a shuffle. A
shard that a killed job has finished is recognised by its hash and not made again.
"""

import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipelines import files, worker
from pipelines.beam import beam
from pipelines.commit import WORK, commit, current, own_output, read_dataset, run_facts, uncommit
from pipelines.curate.numbers import numbers
from pipelines.curate.reconcile import add_counts
from pipelines.progress import progress_folder, show_progress
from pipelines.runners import JobOptions, run_pipeline
from pipelines.sidecars import read_result
from pipelines.token_shards import ShardResult, TokenizeContext, TokenizeShards
from shards.errors import DatasetError, RecipeError, ReconcileError
from shards.hashing import stable_hash
from shards.manifest import (
    Content,
    Counts,
    Manifest,
    ShardEntry,
    check_files,
    new_manifest,
)
from shards.tokens import FORMAT
from tokenizer.account import Account
from tokenizer.documents import check_sources
from tokenizer.folder import read_model
from tokenizer.model import Tokenizer


class TokenizeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[tokenize]` table: `all` takes dropped documents too, so that any arm can select."""

    documents: Literal["kept", "all"] = "kept"


def tokenize(
    data: str, tokenizer: str, out: str, config: TokenizeConfig, options: JobOptions
) -> tuple[Manifest, bool]:
    """Run the tokenize job, or return the dataset that is already there for the same key.

    Args:
        data: folder of a documents dataset.
        tokenizer: tokenizer folder or sentencepiece model.
        out: folder of the tokens dataset.
        config: which documents.
        options: how to run it; changes no byte of the result.

    Returns:
        The manifest, and whether the job had to run.

    Raises:
        DatasetError: `data` or `tokenizer` is not one, `out` holds something else, or a document
            does not come back from its tokens (it is named).
        CorruptError: a document shard does not match its recorded size or hash.
        RecipeError: `documents = "all"`, but the dropped documents were written without text.
        ReconcileError: counts that do not add up; nothing is committed.
    """
    started = time.time()
    if options.runner.workers > 1:
        worker.warm(__name__)
    parent = read_dataset(data)
    model = read_model(Path(tokenizer))
    coder = Tokenizer(model, tokenizer)
    key = stage_key(parent, coder, config)
    inputs = plan_inputs(parent, config)
    with own_output(out, "tokens", keep_work=options.keep_work):
        if done := current(out, key):
            return done, False
        if files.is_local(data):
            check_files(data, parent)
        context = TokenizeContext(
            data=data,
            out=out,
            inputs=inputs,
            sources=sorted(parent.content.sources),
            model=model,
            results=files.join(out, WORK, key),
            progress=progress_folder(out, "tokenize"),
        )
        uncommit(out)  # from here on the folder is not the old dataset any more
        results = _run(context, parent, config, options)
        manifest = new_manifest(
            _content(parent, coder, config, results),
            stage_key=key,
            run=run_facts(started, options, data=data, tokenizer=tokenizer),
        )
        commit(out, manifest)
    return manifest, True


def stage_key(parent: Manifest, tokenizer: Tokenizer, config: TokenizeConfig) -> str:
    """Return the hash of everything that decides the result."""
    return stable_hash([parent.dataset_id, tokenizer.facts, config, definitions()])


def definitions() -> dict[str, str]:
    """Return name → version of every definition that can change a token shard."""
    return {"tokens": f"arrow-v{FORMAT}", "encode": "sentencepiece-eos-v1"}


def plan_inputs(parent: Manifest, config: TokenizeConfig) -> list[dict[str, ShardEntry]]:
    """Return the document shards of each token shard, by role: `kept` and maybe `dropped`.

    Raises:
        DatasetError: the parent does not hold documents, or has too many sources.
        RecipeError: dropped documents are asked for, but were written without their text.
    """
    content = parent.content
    check_sources(content.sources)
    if content.kind != "documents":
        raise DatasetError(f"the data holds {content.kind}, not documents; give a curated dataset")
    if config.documents == "kept":
        return [{"kept": entry} for entry in content.shards["kept"]]
    if not content.recipe.get("output", {}).get("dropped_text", True):
        raise RecipeError(
            "tokenize.documents = 'all': the data was curated with output.dropped_text = false, so"
            " the text of dropped documents is not there; curate again with it, or use 'kept'"
        )
    return [
        {"kept": kept, "dropped": dropped}
        for kept, dropped in zip(content.shards["kept"], content.shards["dropped"], strict=True)
    ]


def _run(
    context: TokenizeContext, parent: Manifest, config: TokenizeConfig, options: JobOptions
) -> list[ShardResult]:
    count = len(context.inputs)

    def build(pipeline: Any) -> None:
        _ = numbers(pipeline, "shards", count) | "tokenize" >> beam.ParDo(TokenizeShards(context))

    total = parent.content.total
    size = total.bytes_kept if config.documents == "kept" else total.bytes_read
    with show_progress(
        "tokenize", size, context.progress, quiet=options.quiet, events=options.events
    ):
        run_pipeline(options.runner, build, label="tokenize")
    results = []
    for shard in range(count):
        result = read_result(context, shard, ShardResult, verify=False)
        if result is None:
            raise ReconcileError(
                f"tokenize ended but shard {shard} of {count} is missing or damaged:"
                " run again and only the missing ones are made"
            )
        results.append(result)
    return results


def _content(
    parent: Manifest, tokenizer: Tokenizer, config: TokenizeConfig, results: list[ShardResult]
) -> Content:
    sources = add_counts(result.sources for result in results)
    for source in parent.content.sources:  # `source_id` counts on all of them
        sources.setdefault(source, Counts())
    check_counts(parent, config, sources)
    total = add_counts({"": count} for count in sources.values()).get("", Counts())
    entries, first = [], 0
    for result in results:
        entries.append(msgspec.structs.replace(result.entry, first_token=first))
        first += result.entry.tokens
    return Content(
        kind="tokens",
        shards={"tokens": entries},
        total=total,
        sources=dict(sorted(sources.items())),
        parents=[parent.dataset_id],
        recipe={"tokenize": msgspec.to_builtins(config)},
        definitions=definitions(),
        tokenizer=dict(tokenizer.facts),
        stats={
            "bytes_per_token": _bytes_per_token(total),
            "sources": {name: _bytes_per_token(sources[name]) for name in sorted(sources)},
            **_languages(results),
            "documents": sum(entry.documents for entry in entries),
            "without_text": sum(result.without_text for result in results),
        },
    )


def _languages(results: list[ShardResult]) -> dict[str, dict[str, float]]:
    """Return bytes per token by language, where the documents state their language."""
    accounts: dict[str, Account] = {}
    for result in results:
        for language, account in result.languages.items():
            accounts[language] = accounts.get(language, Account()) + account
    if not accounts:
        return {}
    return {"languages": {name: accounts[name].bytes_per_token for name in sorted(accounts)}}


def check_counts(parent: Manifest, config: TokenizeConfig, sources: dict[str, Counts]) -> None:
    """Check that as many documents and bytes came out as the parent says went in, per source.

    Raises:
        ReconcileError: naming the source and both counts.
    """
    for source, there in parent.content.sources.items():
        expected = msgspec.structs.replace(there, tokens=0)
        if config.documents == "kept":
            expected = Counts(
                read=there.kept,
                kept=there.kept,
                bytes_read=there.bytes_kept,
                bytes_kept=there.bytes_kept,
            )
        found = msgspec.structs.replace(sources.get(source, Counts()), tokens=0)
        if found != expected:
            raise ReconcileError(
                f"source {source!r}: the documents dataset states {expected}, but {found} were"
                " tokenized; nothing was committed"
            )


def _bytes_per_token(counts: Counts) -> float:
    """Return UTF-8 bytes of text per token, each document's EOS included; 0 without tokens."""
    return counts.bytes_read / counts.tokens if counts.tokens else 0.0
