"""What classifiers that the user gives say of a document: a probability as a column.

    [signals.classifiers.quality]      # adds the column classifier_quality
    model = "models/quality.bin"       # of fastText, supervised: .bin or .ftz
    label = "__label__hq"              # whose probability the column is
    sha256 = "…"                       # optional: refuse any other file

So DCLM's classifier of quality (Li et al. 2024, arXiv:2406.11794, section 4.4) is a column, and so
are RedPajama-v2's `rps_doc_ml_palm_score`, `…_wikiref_score` and `…_wikipedia_score`: there the
probability of the label that is not the crawl's. Assay ships no such model and downloads none.
Models run through fasttext-predict (extra `lang`).

A document is seen whole, as one line: white space becomes one kind, as where such models are
trained, and letters stay as they are. Each process loads each file once. The probability is the
one that fastText gives (some 0.00001 above the softmax's, which it adds before a logarithm), and 0
for a text without a word.
"""

import hashlib
import mmap
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from stat import S_ISREG
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality import fasttext_file
from pipelines.quality.language import one_line
from shards.config import did_you_mean
from shards.errors import InputError, PlatformError, RecipeError

VERSION = "classifier-v1"
PREFIX = "classifier_"

_DIGITS = 5
"""Of a probability that are kept: the last bits of an exponential function are the machine's."""
_ALL_LABELS, _NO_THRESHOLD = -1, -1.0


class ClassifierConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `[signals.classifiers.NAME]` table: a local file, one of its labels, a SHA-256 to pin."""

    model: str
    label: str
    sha256: str = ""


Configs = Mapping[str, ClassifierConfig]


def signals(configs: Configs) -> dict[str, tuple[pa.DataType, str]]:
    """Return column → type and meaning, in the order of names."""
    return {
        f"{PREFIX}{name}": (pa.float32(), f"probability of {configs[name].label}")
        for name in sorted(configs)
    }


def definitions(configs: Configs) -> dict[str, str]:
    """Return name → version, hash of the model and what runs it, which must be there.

    Raises:
        InputError: a model cannot be read, or is none.
        RecipeError: it is not the one that the recipe pins, or does not have the label.
        PlatformError: fasttext-predict is not installed.
    """
    found = {}
    for name, own in sorted(configs.items()):
        hashed, labels = _inspect(own.model, *_stamp(name, own.model))
        where = f"signals.classifiers.{name}"
        if own.sha256 not in {"", hashed}:
            raise RecipeError(
                f"{where}.sha256 = {own.sha256!r}: the file {own.model} has {hashed!r}"
            )
        if own.label not in labels:
            hint = did_you_mean(own.label, labels, "labels")
            raise RecipeError(f"{where}.label = {own.label!r}: the model has no such label{hint}")
        runs = f"fasttext-predict {_runtime()[1]}"
        found[f"classifier {name}"] = f"{VERSION} ({hashed}, {own.label}, {runs})"
    return found


def compute(
    configs: Configs, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `signals`, float32 (n) from 0 to 1.

    Args:
        configs: name → model and label.
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Raises:
        InputError: a model cannot be read, or is none.
        PlatformError: fasttext-predict is not installed.
    """
    columns = {
        f"{PREFIX}{name}": np.zeros(len(offsets) - 1, np.float32) for name in sorted(configs)
    }
    models = {f"{PREFIX}{name}": (_load(name, own.model), own) for name, own in configs.items()}
    view = data.data
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        line = f"{one_line(bytes(view[begin:end]))}\n"
        for column, (predict, own) in models.items():
            columns[column][row] = predict(line).get(own.label, 0.0) if line != "\n" else 0.0
    return columns


def _load(name: str, path: str) -> Callable[[str], dict[str, float]]:
    return _opened(path, *_stamp(name, path))


@cache
def _opened(path: str, *stamp: int) -> Callable[[str], dict[str, float]]:
    """Load a model, once a process; return text → label → probability."""
    _inspect(path, *stamp)
    model = _runtime()[0]()
    try:
        model.loadModel(path)
    except RuntimeError as error:
        raise InputError(f"{path}: fastText cannot load it: {error}") from None

    def predict(line: str) -> dict[str, float]:
        found = model.predict(line, _ALL_LABELS, _NO_THRESHOLD, "strict")
        return {label: round(min(value, 1.0), _DIGITS) for value, label in found}

    return predict


def _stamp(name: str, path: str) -> tuple[int, int]:
    """Return a file's bytes and time of change: another file under one path is looked at anew."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InputError(
            f"signals.classifiers.{name}.model = {path!r}: cannot be opened: {error.strerror}"
            " (it must be a local file, on every machine that works)"
        ) from None
    if not S_ISREG(found.st_mode):
        raise InputError(f"signals.classifiers.{name}.model = {path!r}: is not a file")
    return found.st_size, found.st_mtime_ns


@cache
def _inspect(path: str, *_stamp: int) -> tuple[str, tuple[str, ...]]:
    """Return a model's SHA-256 and its labels.

    Raises:
        InputError: it is no whole model.
    """
    try:
        with (
            Path(path).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return hashlib.sha256(data).hexdigest(), tuple(fasttext_file.labels(data))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a supervised model of fastText: {error}") from None


def _runtime() -> tuple[Callable[[], Any], str]:
    """Return what makes an empty model, and its version."""
    if find_spec("fasttext_pybind") is None:
        raise PlatformError(
            "signals.classifiers needs fasttext-predict: pip install 'assay-corpus[lang]'"
        )
    return import_module("fasttext_pybind").fasttext, version("fasttext-predict")
