"""How well the compression measures tell good prose from junk: AUC with intervals.

    python -m benchmarks.auc [--data FOLDER]
    python -m benchmarks.auc --write-training FOLDER   then the two `assay run` that it prints
    python -m benchmarks.auc --models FOLDER           with `lm_bpb` of those two models

On the data-efficiency pool beside the repository. What is fixed here was fixed before the first
run, on the development corpus; the weights of `junk_score` were chosen anew since
(`quality_weights.py`), on documents that are not in the pool:

* `clean` documents are told from those of each of `JUNK`; the roles in `OTHER` are good text of
  another kind, or older versions of clean pages, and are reported but not part of mean and worst;
* an AUC is the probability that a junk document has the larger value than a clean one, ties half;
* the sources are cut in two, so that the clean bytes are about equal. Each half's clean documents
  are the reference by which the other half is scored; scored documents that share a group or a
  near-duplicate cluster with the reference are left out. The base is the whole pool, as it is,
  without labels. A class that both halves have gets the mean, weighted by documents;
* the interval is 95 % of `RESAMPLES` bootstrap samples of groups, per class and measure.

With `--models` only `SCORED_WITH_MODELS` documents of a class and half are scored, by all measures,
and there are `lm_bpb`, `lm_z` (against a length curve) and `with_lm` = `junk_score` + ln(1 +
max(`lm_z`, 0)): the language model weighs as much as the n-gram model, a weight that nobody tuned.
A model that has learned a source which it would have to score is refused.

The last line is one JSON object: `auc_mean`, `auc_worst` and `per_class` of the combined score
(`junk_score`), `per_measure` of every single one, `combined_with_lm` where there are models.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpus import CORPUS, records
from pipelines.quality import compression, reference
from shards.text import flat

if TYPE_CHECKING:  # it imports torch, which only --models needs
    from benchmarks.auc_lm import Model

JUNK = (
    "boilerplate",
    "licence-boilerplate",
    "mojibake",
    "offlang",
    "code",
    "dictionary",
    "short",
)
OTHER = ("man", "other-docs", "revision")
LEVEL = 3
SOURCE_BYTES = 2_000_000
"""A source gives the reference no more, so that books do not make it up alone."""
SCORED = 1500
"""Documents of a class and half that are scored, those of smallest id (a hash)."""
SCORED_WITH_MODELS = 200
RESAMPLES = 500

Float64 = npt.NDArray[np.float64]
Measure = Callable[[dict[str, Float64]], Float64]

MEASURES: dict[str, Measure] = {
    "zstd_bpb": lambda columns: columns["zstd_bpb"],
    "abs(zstd_z)": lambda columns: np.abs(columns["zstd_z"]),
    "zstd_dict_bpb": lambda columns: columns["zstd_dict_bpb"],
    "ref_bpb": lambda columns: columns["ref_bpb"],
    "ref_z": lambda columns: columns["ref_z"],
    "ref_delta": lambda columns: columns["ref_delta"],
    "delta_z": lambda columns: columns["delta_z"],
    "common_share": lambda columns: columns["common_share"],
    "marginal_bpb": lambda columns: columns["marginal_bpb"],
    "shortness": lambda columns: -columns["bytes"],
    "junk_score": lambda columns: columns["junk_score"],
}
WITH_MODELS: dict[str, Measure] = {
    "lm_bpb": lambda columns: columns["lm_bpb"],
    "lm_z": lambda columns: columns["lm_z"],
    "with_lm": lambda columns: columns["junk_score"] + np.log1p(np.maximum(columns["lm_z"], 0)),
}


class Document(NamedTuple):
    id: str
    text: bytes
    source: str
    role: str
    group: str
    cluster: int


class Scored(NamedTuple):
    """The documents of one role in one half: their columns, and a number for each group."""

    columns: dict[str, Float64]
    groups: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=CORPUS.parent)
    parser.add_argument("--write-training", type=Path, metavar="FOLDER")
    parser.add_argument("--models", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    found = load(arguments.data)
    if arguments.write_training:
        from benchmarks.auc_lm import write_training

        for half in (0, 1):
            good = reference_of(found, half)
            write_training(arguments.write_training.resolve(), half, *texts_of(good))
        return
    halves = [score(found, half, arguments.models) for half in (0, 1)]
    measures = MEASURES | (WITH_MODELS if arguments.models else {})
    table = {
        name: {role: auc(halves, role, measure) for role in (*JUNK, *OTHER)}
        for name, measure in measures.items()
    }
    for name, row in table.items():
        shown = " ".join(f"{role} {value['auc']:.3f}" for role, value in row.items())
        print(f"{name:14} mean {mean(row):.3f}  {shown}")
    result = summary(table["junk_score"]) | {
        "per_measure": {
            name: {"mean": round(mean(row), 4), **{role: row[role]["auc"] for role in row}}
            for name, row in table.items()
        },
    }
    if arguments.models:
        result["combined_with_lm"] = summary(table["with_lm"])
    print(json.dumps(result))


def summary(row: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "auc_mean": round(mean(row), 4),
        "auc_worst": min(row[role]["auc"] for role in JUNK),
        "auc_mean_with_other_roles": round(float(np.mean([one["auc"] for one in row.values()])), 4),
        "per_class": {role: row[role] for role in JUNK},
        "other_roles": {role: row[role] for role in OTHER},
    }


def mean(row: dict[str, dict[str, Any]]) -> float:
    return float(np.mean([row[role]["auc"] for role in JUNK]))


def load(folder: Path) -> list[Document]:
    """Return the pool with its truth, in the order of ids."""
    truth = {row["id"]: row for row in records(folder / "dataeff_pool.truth.jsonl.zst")}
    made = []
    for row in records(folder / "dataeff_pool.jsonl.zst"):
        true = truth[row["id"]]
        text = row["text"].encode()
        made.append(
            Document(row["id"], text, row["source"], true["role"], true["group"], true["cluster"])
        )
    return sorted(made)


def halves_of(found: Iterable[Document]) -> dict[str, int]:
    """Return source → half: by clean bytes (documents count one byte), largest first."""
    weights: Counter[str] = Counter()
    for document in found:
        weights[document.source] += len(document.text) if document.role == "clean" else 1
    half, loads = {}, [0, 0]
    for source in sorted(weights, key=lambda name: (-weights[name], name)):
        half[source] = loads.index(min(loads))
        loads[half[source]] += weights[source]
    return half


def reference_of(found: list[Document], half: int) -> list[Document]:
    """Return the clean documents of the other half: what `half` is scored by."""
    side = halves_of(found)
    taken: Counter[str] = Counter()
    good = []
    for document in found:
        if document.role == "clean" and side[document.source] != half:
            if taken[document.source] < SOURCE_BYTES:
                good.append(document)
            taken[document.source] += len(document.text)
    return good


def texts_of(good: list[Document]) -> tuple[list[bytes], list[str]]:
    return [document.text for document in good], [document.source for document in good]


def score(found: list[Document], half: int, models: Path | None = None) -> dict[str, Scored]:
    """Score the documents of one half by a reference, and maybe a model, from the other."""
    good = reference_of(found, half)
    trained = reference.train_reference(
        *texts_of(good), [document.text for document in found], LEVEL
    )
    side = halves_of(found)
    groups = {document.group for document in good}
    clusters = {document.cluster for document in good}
    most = SCORED_WITH_MODELS if models else SCORED
    by_role: defaultdict[str, list[Document]] = defaultdict(list)
    for document in found:
        known = document.group in groups or document.cluster in clusters
        if side[document.source] == half and not known and len(by_role[document.role]) < most:
            by_role[document.role].append(document)
    shown = {role: len(documents) for role, documents in sorted(by_role.items())}
    print(
        f"half {half}: reference of {len(good)} documents,"
        f" {trained.target.text_bytes / 1e6:.1f} MB; scored {shown}"
    )
    model = None
    if models:
        from benchmarks.auc_lm import open_model

        sources = {document.source for documents in by_role.values() for document in documents}
        model = open_model(models, half, *texts_of(good), sources)
    return {role: columns(trained, model, documents) for role, documents in by_role.items()}


def columns(
    trained: reference.Reference, model: "Model | None", documents: list[Document]
) -> Scored:
    data, offsets = flat(pa.array([d.text.decode() for d in documents], pa.large_string()))
    zstd = compression.zstd_bpb(data, offsets, LEVEL)
    found = reference.measure(trained, data, offsets, zstd)
    found |= {"zstd_bpb": zstd, "bytes": np.diff(offsets)}
    if model:
        from benchmarks.auc_lm import measure

        found |= measure(model, data, offsets)
    _, groups = np.unique([document.group for document in documents], return_inverse=True)
    return Scored({name: value.astype(np.float64) for name, value in found.items()}, groups)


def auc(halves: list[dict[str, Scored]], role: str, measure: Measure) -> dict[str, Any]:
    """Return the AUC of one measure for one role, its interval and the documents behind it."""
    rng = np.random.default_rng(0)
    values, weights = [], []
    for half in halves:
        if role in half:
            clean, junk = half["clean"], half[role]
            values.append(
                aucs(
                    measure(clean.columns),
                    measure(junk.columns),
                    resampled(clean.groups, rng),
                    resampled(junk.groups, rng),
                )
            )
            weights.append(len(junk.groups))
    both = np.average(values, axis=0, weights=weights)
    low, high = np.quantile(both[1:], (0.025, 0.975))
    return {
        "auc": round(float(both[0]), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "documents": sum(weights),
    }


def resampled(groups: npt.NDArray[np.int64], rng: np.random.Generator) -> Float64:
    """Return the documents' weights, (1 + RESAMPLES, n): all once, then groups with repeats."""
    n = int(groups.max()) + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)[:, groups]
    return np.vstack([np.ones(len(groups)), drawn]).astype(np.float64)


def aucs(clean: Float64, junk: Float64, of_clean: Float64, of_junk: Float64) -> Float64:
    """Return the AUC for each row of weights: P(junk > clean) + P(junk = clean) / 2."""
    order = np.argsort(clean, kind="stable")
    below = np.concatenate(
        [np.zeros((len(of_clean), 1)), np.cumsum(of_clean[:, order], axis=1)], axis=1
    )
    left = np.searchsorted(clean[order], junk, "left")
    right = np.searchsorted(clean[order], junk, "right")
    wins = (below[:, left] + below[:, right]) / 2
    total: Float64 = (of_junk * wins).sum(axis=1) / (of_junk.sum(axis=1) * below[:, -1])
    return total


if __name__ == "__main__":
    main()
