"""Choose the weights of `junk_score` on the development corpus, without what the pool will judge.

    python -m benchmarks.quality_weights [--data FOLDER]

`benchmarks/auc.py` judges on the data-efficiency pool. The two corpora share documents (all
boilerplate, all licences and two thirds of the clean pages of the pool stand in the development
corpus too), so every document whose text or group is in the pool is left out here. What is left
has no boilerplate and no mojibake; both are made:

* `boilerplate`: paragraphs of some clean pages, which are used for nothing else, put together to
  notices of `NOTICE_PARAGRAPHS`, each of which stands in `COPIES` documents with other headings;
* `mojibake`: UTF-8 of other languages read as Latin-1.

The other classes are sources. The score is Σ weight · term over the terms of `reference.py`, the
weight of `ref_z` fixed at 1; the weights are those of `GRID` with the best mean of (mean AUC,
worst AUC). None leaves out `zstd_z`, though these classes would: they have neither texts that
repeat themselves nor noise, which no other term sees. Cross-validation over groups says what that
choice is worth: each fold is judged with the weights that the other folds choose. The last line
is one JSON object.
"""

import argparse
import itertools
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from benchmarks.auc import Document, Scored, aucs, score
from benchmarks.corpus import CORPUS, records

CLEAN = (
    "books/standardebooks",
    "news/onestopenglish",
    "textbook/openstax",
    "gov/state_union",
    "gov/inaugural",
    "docs/postgresql15",
    "docs/python311",
    "docs/git",
    "docs/python-peps",
    "docs/rust-book",
    "docs/kotlin-web-site",
    "docs/gnome-user-docs",
)
GRID = {
    "zstd": (0.25, 0.5, 1.0),
    "delta": (0.5, 1.0, 2.0),
    "common": (0.0, 1.0, 2.0, 4.0, 8.0),
}
FIRST = (0.5, 1.0, 1.0)
"""The weights of reference-v1, which were chosen on all of the development corpus."""
FOLDS = 5
NOTICES, NOTICE_PARAGRAPHS, COPIES = 16, 4, 15
GARBLED = 300

Float64 = npt.NDArray[np.float64]
Weights = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=CORPUS.parent)
    found = load(parser.parse_args().data)
    halves = [score(found, half) for half in (0, 1)]
    grid: list[Weights] = list(itertools.product(*GRID.values()))
    everything = np.ones(FOLDS, np.bool_)
    chosen = max(grid, key=lambda weights: worth(per_class(halves, weights, everything)))
    judged: defaultdict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        inside = np.arange(FOLDS) == fold
        own = max(grid, key=lambda weights: worth(per_class(halves, weights, ~inside)))
        print(f"fold {fold}: the others choose {dict(zip(GRID, own, strict=True))}")
        for role, value in per_class(halves, own, inside).items():
            judged[role].append(value)
    result = {
        "weights": dict(zip(GRID, chosen, strict=True)),
        "chosen_on_all": rounded(per_class(halves, chosen, everything)),
        "first_weights": rounded(per_class(halves, FIRST, everything)),
        "cross_validated": {role: round(float(np.mean(v)), 4) for role, v in judged.items()},
    }
    print(json.dumps(result))


def load(folder: Path) -> list[Document]:
    """Return the development corpus by class, without what the pool has."""
    pool = {row["group"] for row in records(folder / "dataeff_pool.truth.jsonl.zst")}
    texts = {digest(row["text"]) for row in records(folder / "dataeff_pool.jsonl.zst")}
    truth = {row["id"]: row for row in records(folder / "dev.truth.jsonl.zst")}
    found = []
    for row in records(folder / "dev.jsonl.zst"):
        own = truth[row["id"]]
        role = role_of(row["source"], row["lang"])
        if role and own["group"] not in pool and digest(row["text"]) not in texts:
            text = row["text"].encode()
            found.append(
                Document(row["id"], text, row["source"], role, own["group"], own["cluster"])
            )
    return sorted(boilerplate(found) + mojibake(found))


def digest(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def role_of(source: str, lang: str) -> str:
    """Return the class of a record, "" for those that are left out."""
    kind = source.split("/", maxsplit=1)[0]
    if kind in {"code", "dict"}:
        return {"code": "code", "dict": "dictionary"}[kind]
    if lang != "en":
        return "offlang" if lang not in {"und", "py"} else ""
    if kind == "quotes":
        return "short"
    return "clean" if source in CLEAN else ""


def boilerplate(found: list[Document]) -> list[Document]:
    """Return the documents with notices made of clean ones, which are taken out."""
    rng = random.Random(0)
    clean = sorted(document for document in found if document.role == "clean")
    given = rng.sample(clean, NOTICES)
    groups = {document.group for document in given}
    made = []
    for number, document in enumerate(given):
        paragraphs = [part for part in document.text.split(b"\n\n") if len(part) > 80]
        start = rng.randrange(max(len(paragraphs) - NOTICE_PARAGRAPHS, 1))
        notice = b"\n\n".join(paragraphs[start : start + NOTICE_PARAGRAPHS])[:4000]
        for copy in range(COPIES):
            heading = rng.choice(clean).text[:60].decode(errors="ignore").encode()
            made.append(
                Document(
                    f"notice{number}-{copy}",
                    heading + b"\n\n" + notice,
                    f"notice/{number}",
                    "boilerplate",
                    f"notice:{number}",
                    -1 - number,
                )
            )
    return [document for document in found if document.group not in groups] + made


def mojibake(found: list[Document]) -> list[Document]:
    """Return documents of other languages, their UTF-8 read as Latin-1."""
    rng = random.Random(1)
    chosen = rng.sample(sorted(d for d in found if d.role == "offlang"), GARBLED)
    return [
        document._replace(
            id=f"garbled-{document.id}",
            text=document.text.decode("latin-1").encode(),
            role="mojibake",
            cluster=-10_000 - number,
        )
        for number, document in enumerate(chosen)
    ] + found


def per_class(
    halves: list[dict[str, Scored]], weights: Weights, folds: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Return the AUC of each class, of the documents in some folds, by the number of documents."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for half in halves:
        clean = of_folds(half["clean"], weights, folds)
        for role, scored in half.items():
            junk = of_folds(scored, weights, folds)
            if role != "clean" and len(junk) and len(clean):
                one = np.ones((1, len(clean)))
                values[role].append(float(aucs(clean, junk, one, np.ones((1, len(junk))))[0]))
                sizes[role].append(len(junk))
    return {role: float(np.average(values[role], weights=sizes[role])) for role in sorted(values)}


def of_folds(scored: Scored, weights: Weights, folds: npt.NDArray[np.bool_]) -> Float64:
    """Return the score of the documents whose group is in one of the folds."""
    columns = scored.columns
    total: Float64 = (
        weights[0] * _damped(np.abs(columns["zstd_z"]))
        + _damped(columns["ref_z"])
        + weights[1] * _damped(columns["delta_z"])
        + weights[2] * columns["common_share"]
    )
    return total[folds[scored.groups % FOLDS]]


def _damped(z: Float64) -> Float64:
    return np.asarray(np.log1p(np.maximum(z, 0)))


def worth(values: dict[str, float]) -> float:
    """Return what is maximised: mean and worst AUC count the same."""
    return (float(np.mean(list(values.values()))) + min(values.values())) / 2


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(list(values.values()))), 4),
        **{role: round(value, 4) for role, value in values.items()},
    }


if __name__ == "__main__":
    main()
