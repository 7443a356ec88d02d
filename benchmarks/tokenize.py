"""Speed of the tokenizer, and whether its ids are sentencepiece's on every document.

    python -m benchmarks.tokenize [--quick] [--peers] [--corpus FILE.jsonl.zst] [--vocab-size N]

A BPE model is trained on the sample and then encodes it, in batches of 4 MiB as the tokenize job
does: on every tenth record of the development corpus beside the repository where that is there,
else on the sources of the standard library. The encoder starts each turn with empty tables of what
it has seen; making its fixed tables (`build_s`) is apart, since a worker does that once. Speeds are
MB of UTF-8 text a second of CPU time, medians. The last line is one JSON object:

    mb_per_cpu_s                our encoder
    sentencepiece_mb_per_cpu_s  sentencepiece's own batch call on the same documents
    columns_mb_per_cpu_s        documents to the columns of a token shard: encoding, the check that
                                each document comes back, lengths, sources
    ids_equal, compared         whether all documents of the sample have sentencepiece's ids
"""

import argparse
import itertools
import json
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sentencepiece

from benchmarks import tokenize_peers
from benchmarks.corpus import CORPUS, cpu_seconds, records
from tokenizer.config import TokenizerConfig
from tokenizer.documents import encode_table
from tokenizer.model import Tokenizer
from tokenizer.train import train_model

BATCH_BYTES = 4 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on 2 busy cores")
    parser.add_argument("--peers", action="store_true", help="compare with what is installed")
    parser.add_argument("--corpus", type=Path, help="JSONL in zstd with a field `text`")
    parser.add_argument("--vocab-size", type=int, default=32768)
    options = parser.parse_args()
    size = 8_000_000 if options.quick else 60_000_000
    texts, origin = sample(options.corpus, size)
    model = train_model(half(texts, 4_000_000), TokenizerConfig(vocab_size=options.vocab_size))
    tokenizer = Tokenizer(model)
    batches = list(batched(texts))
    total = sum(len(text.encode()) for text in texts) / 1e6
    repeats = 3 if options.quick else 7
    build_s, seconds = ours(model, batches, repeats)
    right, plain = expected(model, texts)
    columns = cpu_seconds(lambda: encode_table(table(texts), tokenizer, ["web"]), 2)
    result = {
        "corpus": origin,
        "documents": len(texts),
        "mb": round(total, 1),
        "vocab_size": tokenizer.vocab_size,
        "mb_per_cpu_s": round(total / seconds, 1),
        "sentencepiece_mb_per_cpu_s": round(total / plain, 2),
        "columns_mb_per_cpu_s": round(total / columns, 1),
        "build_s": round(build_s, 2),
        **equal(model, right, batches),
    }
    if options.peers:
        result |= tokenize_peers.measure(model, texts, [ids.tolist() for ids in right])
    print(json.dumps(result))


def sample(corpus: Path | None, n_bytes: int) -> tuple[list[str], str]:
    """Return documents with about `n_bytes` of text, and where they come from."""
    source: Iterator[str]
    if corpus or CORPUS.exists():
        path = corpus or CORPUS
        every = 1 if corpus else 10
        source = (record["text"] for record in itertools.islice(records(path), 0, None, every))
        origin = path.name
    else:
        folder = Path(sysconfig.get_path("stdlib"))
        files = (path for path in sorted(folder.rglob("*.py")) if "packages" not in str(path))
        source = (path.read_text(encoding="utf-8", errors="replace") for path in files)
        origin = "the standard library's sources"
    texts, size = [], 0
    for text in source:
        texts.append(text)
        size += len(text.encode())
        if size >= n_bytes:
            break
    return texts, origin


def half(texts: list[str], n_bytes: int) -> Iterator[str]:
    """Yield every second document, up to `n_bytes`: half of the sample is new to the model."""
    size = 0
    for text in texts[::2]:
        yield text
        size += len(text.encode())
        if size >= n_bytes:
            return


def batched(texts: list[str]) -> Iterator[pa.Array]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.encode())
        if size >= BATCH_BYTES:
            yield pa.array(batch, pa.large_string())
            batch, size = [], 0
    if batch:
        yield pa.array(batch, pa.large_string())


def ours(model: bytes, batches: list[pa.Array], repeats: int) -> tuple[float, float]:
    """Return CPU seconds of making the tables, and of one pass with empty caches: medians."""
    builds, passes = [], []
    for _ in range(repeats):
        tokenizer = Tokenizer(model)
        builds.append(cpu(lambda t=tokenizer: t._fast_encoder(1 << 30)))
        passes.append(cpu(lambda t=tokenizer: [t.encode_batch(batch) for batch in batches]))
    return statistics.median(builds), statistics.median(passes)


def cpu(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def expected(model: bytes, texts: list[str]) -> tuple[list[Any], float]:
    """Return sentencepiece's ids, and the CPU seconds of its batch call.

    U+2581 in a text becomes its three byte pieces: sentencepiece itself takes it for a space, and
    so cannot give such a text back.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    cut = [processor.PieceToId(f"<0x{byte:02X}>") for byte in "\u2581".encode()]
    strings = [text.encode() for text in texts]
    start = time.process_time()
    found = list(processor.EncodeAsNumpy(strings, num_threads=1, add_eos=True))
    seconds = time.process_time() - start
    for i, text in enumerate(texts):
        if "\u2581" in text:
            parts = [processor.EncodeAsIds(part) for part in text.split("\u2581")]
            ids = list(parts[0])
            for part in parts[1:]:
                ids += [*cut, *part]
            found[i] = np.array([*ids, processor.eos_id()])
    return found, seconds


def equal(model: bytes, right: list[Any], batches: list[pa.Array]) -> dict[str, Any]:
    """Compare all documents with sentencepiece's ids."""
    tokenizer = Tokenizer(model)
    found = []
    for batch in batches:
        ids, cuts = tokenizer.encode_batch(batch)
        found += [ids[start:end] for start, end in itertools.pairwise(cuts)]
    different = sum(not np.array_equal(one, other) for one, other in zip(found, right, strict=True))
    return {
        "ids_equal": different == 0,
        "compared": len(right),
        "different": different,
        "encoder": "sentencepiece" if tokenizer._fast is None else "fast",
    }


def table(texts: list[str]) -> pa.Table:
    """Lay texts out as a documents shard."""
    n = len(texts)
    return pa.table(
        {
            "doc_id": pa.array([i.to_bytes(16, "big") for i in range(n)], pa.binary(16)),
            "source": ["web"] * n,
            "split": ["train"] * n,
            "text": pa.array(texts, pa.large_string()),
        }
    )


if __name__ == "__main__":
    main()
