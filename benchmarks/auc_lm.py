"""Language models for `benchmarks.auc`: one for each half, trained on the other half's clean text.

`write_training` makes the corpora and recipes, `assay run` the models, `open_model` what scores.

A model learns three of the four folds of its sources (`reference.folds`), and the length curve of
`lm_z` is fitted on the fourth, which it has not seen: the rule of the reference's own curves.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality import lengths, reference
from shards.errors import DatasetError
from shards.manifest import read_manifest
from tokenizer.folder import MODEL
from tokenizer.model import Tokenizer
from trainer.data import Documents
from trainer.score import TrainedModel, lm_bpb, load_model

CURVE_FOLD = 0
RECIPE = """\
# Model {half} of `benchmarks.auc`: it scores half {half} and learns clean text of the other.
name = "auc-half-{half}"

[input]
paths = ["{corpus}"]

[split]
valid_fraction = 0.02

[tokenizer]
vocab_size = 4096

[train]
tokens = 700_000
sequence_length = 256
batch_size = 8
eval_every = 0
eval_tokens = 50_000
"""


class Model(NamedTuple):
    trained: TrainedModel
    tokenizer: Tokenizer
    curve: lengths.Curve


def write_training(folder: Path, half: int, texts: Sequence[bytes], sources: Sequence[str]) -> None:
    """Write the corpus and the recipe of the model that scores `half`."""
    place = folder / f"half-{half}"
    place.mkdir(parents=True, exist_ok=True)
    fold = reference.folds(texts, sources)
    corpus = place / "corpus.jsonl"
    with corpus.open("w") as file:
        for text, source, own in zip(texts, sources, fold, strict=True):
            if own != CURVE_FOLD:
                file.write(json.dumps({"text": text.decode(), "source": source}) + "\n")
    (place / "recipe.toml").write_text(RECIPE.format(half=half, corpus=corpus))
    print(f"assay run {place / 'recipe.toml'} --out {place}")


def open_model(
    folder: Path, half: int, texts: Sequence[bytes], sources: Sequence[str], scored: set[str]
) -> Model:
    """Open the model that scores `half`; `scored` are the sources of what it will score.

    Raises:
        DatasetError: the model has learned one of these sources.
    """
    place = folder / f"half-{half}"
    learned = set(read_manifest(place / "tokens").content.sources)
    if both := sorted(learned & scored):
        raise DatasetError(f"{place}: the model has learned {both[0]!r}, which it is to score")
    trained = load_model(place / "runs" / "train", "cpu")
    tokenizer = Tokenizer.load(place / "tokenizer" / MODEL)
    fold = reference.folds(texts, sources)
    data = bytearray()
    offsets = [0]
    for text, own in zip(texts, fold, strict=True):
        if own == CURVE_FOLD:
            data += text
            offsets.append(len(data))
    flat = np.frombuffer(bytes(data), np.uint8), np.array(offsets, np.int64)

    def measure(
        data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        return bpb(trained, tokenizer, data, offsets)

    return Model(trained, tokenizer, lengths.fit([lengths.pieces(measure, *some(flat))]))


def some(
    flat: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]], documents: int = 120
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the first documents: they stand in the order of their ids, which are hashes."""
    data, offsets = flat
    return data, offsets[: documents + 1]


def measure(
    model: Model, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float32]]:
    found = bpb(model.trained, model.tokenizer, data, offsets)
    return {"lm_bpb": found, "lm_z": lengths.z_scores(model.curve, np.diff(offsets), found)}


def bpb(
    trained: TrainedModel,
    tokenizer: Tokenizer,
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return `lm_bpb` of texts; a character that a piece cuts through counts as U+FFFD's bytes."""
    texts = [
        data[begin:end].tobytes().decode("utf-8", "replace")
        for begin, end in pairwise(offsets.tolist())
    ]
    ids, cuts = tokenizer.encode_batch(pa.array(texts, pa.large_string()))
    return lm_bpb(
        trained,
        Documents(
            tokens=ids,
            offsets=cuts,
            bytes=np.array([len(text.encode()) for text in texts], np.int64),
            source=np.zeros(len(texts), np.int64),
            sources=("",),
            eos=tokenizer.eos_id,
        ),
    )
