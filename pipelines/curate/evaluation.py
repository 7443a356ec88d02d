"""Evaluation sets: which files, their items' n-grams, and what a batch of documents has of them.

Sets go by the names that the recipe gives them and by their files' content, so that a result does
not depend on where the files lie. Each worker process makes the index once.
"""

from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from dedup.config import ContaminationConfig
from dedup.contamination import EvaluationIndex, find_contamination, index_items
from dedup.words import Int64, UInt8
from pipelines import files
from pipelines.curate.schema import EVALUATION
from pipelines.readers import Fields, plan_ranges, read_range
from shards.errors import InputError, RecipeError
from shards.text import flat

_RANGE_BYTES = 1 << 30


class EvaluationFile(msgspec.Struct, frozen=True):
    """A file of an evaluation set, with the xxh3-128 (hex) of its bytes."""

    set: str
    path: str
    bytes: int
    hash: str


class Evaluation(NamedTuple):
    """The items of all sets and their n-grams."""

    ngrams: EvaluationIndex
    sets: list[str]
    """Of each item: the name of its set."""
    names: list[str]
    """Of each item: its own id, or its position in its file."""


def find_evaluation(config: ContaminationConfig) -> list[EvaluationFile]:
    """Find and hash the files of the evaluation sets, sorted by (set, hash), equal ones once.

    Raises:
        RecipeError: a set without files.
        InputError: a pattern without a file.
    """
    found = {}
    for name, patterns in config.sets.items():
        if not patterns:
            raise RecipeError(f"dedup.contamination.sets.{name} is empty: name at least one file")
        for path, size in files.expand(patterns, f"dedup.contamination.sets.{name}"):
            digest = xxhash.xxh3_128_hexdigest(files.read_bytes(path))
            found[name, digest] = EvaluationFile(name, path, size, digest)
    return [found[key] for key in sorted(found)]


def identity(evaluation: list[EvaluationFile]) -> dict[str, list[str]]:
    """Return what a result depends on: each set's name and the hashes of its files."""
    return {
        name: [file.hash for file in evaluation if file.set == name]
        for name in sorted({file.set for file in evaluation})
    }


def load_evaluation(evaluation: list[EvaluationFile], config: ContaminationConfig) -> Evaluation:
    """Read the evaluation sets and index their n-grams; once a process.

    Raises:
        InputError: a file that changed since it was hashed, a record that cannot be read, or a
            set whose items are all shorter than `min_words`.
    """
    return _load(
        tuple(evaluation), config.text_field, config.id_field, config.ngram, config.min_words
    )


@cache
def _load(
    evaluation: tuple[EvaluationFile, ...], text: str, name: str, ngram: int, min_words: int
) -> Evaluation:
    sets, names, texts = [], [], []
    fields = Fields(text, name)
    for file in evaluation:
        if xxhash.xxh3_128_hexdigest(files.read_bytes(file.path)) != file.hash:
            raise InputError(f"{file.path}: was changed while it was read; run again")
        for batch in _batches(file, fields):
            texts.append(batch["text"].cast(pa.large_string()))
            positions = batch["position"].to_pylist()
            names += [
                own if own is not None else f"at {at}"
                for own, at in zip(batch["id"].to_pylist(), positions, strict=True)
            ]
            sets += [file.set] * len(batch)
    data, offsets = flat(pa.chunked_array(texts, type=pa.large_string()))
    index = index_items(data, offsets, ngram, min_words)
    for file in evaluation:
        if not any(index.n_ngrams[item] for item, own in enumerate(sets) if own == file.set):
            raise InputError(
                f"{file.path}: evaluation set {file.set!r} has no item of at least"
                f" dedup.contamination.min_words = {min_words} words, so nothing of it can be found"
            )
    return Evaluation(index, sets, names)


def _batches(file: EvaluationFile, fields: Fields) -> list[pa.RecordBatch]:
    """Read one file whole; an evaluation set with holes would promise too much."""
    batches = []
    for span in plan_ranges(
        file.path, "auto", file.bytes, files.open_file, _RANGE_BYTES, fields=fields
    ):
        for batch in read_range(span, files.open_file, fields):
            bad = np.flatnonzero(batch["error"].is_valid())
            if len(bad):
                row = int(bad[0])
                raise InputError(
                    f"{file.path}: the record at {batch['position'][row].as_py()} cannot be read:"
                    f" {batch['error'][row].as_py()}: {batch['detail'][row].as_py()}"
                    " (dedup.contamination.sets)"
                )
            batches.append(batch)
    return batches


def evaluation_columns(
    data: UInt8,
    offsets: Int64,
    evaluation: list[EvaluationFile],
    config: ContaminationConfig,
) -> dict[str, pa.Array]:
    """Return the columns `EVALUATION` of a batch of n documents."""
    n = offsets.size - 1
    if not evaluation:
        return {field.name: pa.nulls(n, field.type) for field in EVALUATION}
    known = load_evaluation(evaluation, config)
    found = find_contamination(data, offsets, known.ngrams)
    overlap: list[float | None] = [None] * n
    detail: list[str | None] = [None] * n
    spans: list[list[dict[str, int]] | None] = [None] * n
    for row in np.flatnonzero(found.overlap >= np.float32(config.overlap)).tolist():
        doc, item = int(found.doc[row]), int(found.item[row])
        first, last = found.span_offsets[row], found.span_offsets[row + 1]
        overlap[doc] = float(found.overlap[row])
        detail[doc] = (
            f"{known.sets[item]}: item {known.names[item]}: {found.shared[row]} of"
            f" {known.ngrams.n_ngrams[item]} n-grams of {config.ngram} words"
        )
        spans[doc] = [
            {"start": int(start), "end": int(end)}
            for start, end in zip(found.start[first:last], found.end[first:last], strict=True)
        ]
    return {
        field.name: pa.array(values, type=field.type)
        for field, values in zip(EVALUATION, (overlap, detail, spans), strict=True)
    }


def set_stats(
    evaluation: list[EvaluationFile], config: ContaminationConfig
) -> dict[str, dict[str, int]]:
    """Return, for each set, its items and how many are too short to be found."""
    if not evaluation:
        return {}
    known = load_evaluation(evaluation, config)
    stats: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(known.sets):
        items = [item for item, own in enumerate(known.sets) if own == name]
        short = int((known.ngrams.n_ngrams[items] == 0).sum())
        stats[name] = {"items": len(items), "too_short": short}
    return stats
