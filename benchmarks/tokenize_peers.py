"""Other encoders of sentencepiece models, those that are installed, on the same documents."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Encode = Callable[[list[str]], list[Sequence[int]]]


def measure(model: bytes, texts: list[str], expected: list[list[int]]) -> dict[str, Any]:
    """Return per peer MB a CPU second (one pass) and the documents with other ids.

    Peers give no EOS, and take U+2581 for a space as sentencepiece does: documents with that
    character are left out of the comparison.
    """
    total = sum(len(text.encode()) for text in texts) / 1e6
    found, missing = {}, []
    for name, make in (("gigatoken", _gigatoken), ("kitoken", _kitoken)):
        try:
            encode = make(model)
        except ImportError:
            missing.append(name)
            continue
        start = time.process_time()
        ids = encode(texts)
        seconds = time.process_time() - start
        different = sum(
            list(one) != other[:-1]
            for text, one, other in zip(texts, ids, expected, strict=True)
            if "\u2581" not in text
        )
        found[name] = {"mb_per_cpu_s": round(total / seconds, 1), "different": different}
    return {"peers": found, "peers_not_installed": missing}


def _gigatoken(model: bytes) -> Encode:
    import gigatoken

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.model")
        path.write_bytes(model)
        tokenizer = gigatoken.Tokenizer(str(path))
    return lambda texts: list(tokenizer.encode_batch(texts))


def _kitoken(model: bytes) -> Encode:
    import kitoken

    tokenizer = kitoken.Kitoken(model)
    return lambda texts: [tokenizer.encode(text, False) for text in texts]
