"""datatrove's filters and signatures on a JSONL file, for `benchmarks/quality.py`.

    PYTHON_WITH_DATATROVE -P benchmarks/quality_peers.py FILE.jsonl

Nothing of Assay is imported, so that the interpreter can be that of another environment. Words are
split at white space and sentences by a pattern, which is what Assay does and faster than the
language models that datatrove loads otherwise. `chain` is what a user runs: read, C4, Gopher
repetition, Gopher quality, FineWeb, signatures of 5-grams (14 × 8), each on what the one before
left; `all` is each step on every document, which is what Assay's signals are.
"""

import contextlib
import copy
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def main() -> None:
    from datatrove.data import Document
    from datatrove.utils.word_tokenizers import WordTokenizer

    class WhiteSpace(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return SENTENCE.split(text)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            ends = [match.end() for match in SENTENCE.finditer(text)]  # of sentences: its only use
            return list(zip([0, *ends], [*ends, len(text)], strict=True))

    path = Path(sys.argv[1])
    steps = filters(WhiteSpace())
    found: dict[str, Any] = {"seconds": {}}
    start = time.process_time()
    documents = list(read(path))
    found["seconds"]["read"] = time.process_time() - start
    for name, step in steps.items():
        copies = copy.deepcopy(documents)  # C4 rewrites its text
        start = time.process_time()
        for document in copies:
            decide(step, document)
        found["seconds"][name] = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        list(signatures(folder, WhiteSpace()).run(iter(documents)) or [])
        found["seconds"]["signatures"] = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        stream: Iterator[Document] = read(path)
        for step in steps.values():
            stream = step.run(stream)
        list(signatures(folder, WhiteSpace()).run(stream) or [])
        found["seconds"]["chain"] = time.process_time() - start
    print(json.dumps(found))


def filters(words: Any) -> dict[str, Any]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return {
        "c4": C4QualityFilter(language=words),
        "gopher_repetition": GopherRepetitionFilter(language=words),
        "gopher": GopherQualityFilter(language=words),
        "fineweb": FineWebQualityFilter(language=words),
    }


def signatures(folder: str, words: Any) -> Any:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    return MinhashDedupSignature(folder, config, language=words)


def read(path: Path) -> Iterator[Any]:
    from datatrove.pipeline.readers import JsonlReader

    yield from JsonlReader(str(path.parent), glob_pattern=path.name, compression=None).run()


def decide(step: Any, document: Any) -> None:
    # It divides by zero to say that there is no line or no word.
    with contextlib.suppress(ZeroDivisionError):
        step.filter(document)


if __name__ == "__main__":
    main()
