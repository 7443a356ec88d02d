"""Two tokenizers on the same documents: bytes per token, tokens per word, what does not come back.

Fertility is the mean number of tokens a word is cut into (Rust et al., "How Good is Your
Tokenizer?", ACL 2021, section 4). A word is what stands between white space, so fertility says
little about languages written without spaces; bytes per token says it for all.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import DatasetError, InputError
from shards.manifest import check_files, read_manifest
from tokenizer.account import LANGUAGE_COLUMNS, languages
from tokenizer.documents import read_documents
from tokenizer.model import Tokenizer

_WORD = r"[^\s\x0b\x1c-\x1f\x{85}\p{Z}]+"
"""What `str.split()` would return, in RE2's terms."""

_BATCH_BYTES = 4 << 20
_COLUMNS = ("text", "source", *LANGUAGE_COLUMNS)


class Score(msgspec.Struct, frozen=True):
    """One tokenizer on some documents; `tokens` and `bytes_per_token` count each document's EOS.

    `fertility` is tokens per word, EOS left out. `failures` counts documents whose tokens do not
    spell their text. Ratios are 0 where there is nothing to divide by.
    """

    tokens: int
    bytes_per_token: float
    fertility: float
    failures: int


class Row(msgspec.Struct, frozen=True):
    """Some documents (of one source, of one language, or all), and both tokenizers on them."""

    documents: int
    bytes: int
    words: int
    a: Score
    b: Score


class Vocabulary(msgspec.Struct, frozen=True):
    """One tokenizer: `pieces_hash` is the same for two files that encode alike."""

    name: str
    vocab_size: int
    sha256: str
    pieces_hash: str


class Comparison(msgspec.Struct, frozen=True):
    """What `assay tokenizer compare` says; `shared_pieces` is how many both vocabularies hold.

    `total` is None where no documents were given, `languages` empty where none are stated.
    """

    a: Vocabulary
    b: Vocabulary
    shared_pieces: int
    total: Row | None
    sources: dict[str, Row]
    languages: dict[str, Row]


def compare(a: Tokenizer, b: Tokenizer, tables: Iterable[pa.Table]) -> Comparison:
    """Encode documents with two tokenizers.

    Args:
        a, b: the tokenizers; load them with `lossy=True` to count what a model loses.
        tables: rows with `text`, `source` and maybe a language column; `text` may be null.
    """
    sums: dict[str, dict[str, npt.NDArray[np.int64]]] = {"total": {}, "source": {}, "language": {}}
    for table in tables:
        readable = table.filter(pc.is_valid(table["text"]))
        for batch in _batches(readable):
            counts = _measure(batch, a, b)
            _add(sums["total"], pa.array([""] * len(batch)), counts)
            _add(sums["source"], batch["source"].combine_chunks(), counts)
            if (labels := languages(batch)) is not None:
                _add(sums["language"], labels, counts)
    rows = {
        kind: {name: _row(found[name]) for name in sorted(found)} for kind, found in sums.items()
    }
    return Comparison(
        _vocabulary(a),
        _vocabulary(b),
        len(set(filter(None, a.piece_bytes)) & set(filter(None, b.piece_bytes))),
        rows["total"].get(""),
        rows["source"],
        rows["language"],
    )


def dataset_tables(folder: Path) -> Iterator[pa.Table]:
    """Yield the kept documents of a documents dataset, a shard at a time.

    Raises:
        DatasetError: not a documents dataset, or a shard is missing.
        CorruptError: a shard does not match its recorded size or hash.
    """
    manifest = read_manifest(folder)
    if manifest.content.kind != "documents":
        raise DatasetError(f"{folder}: holds {manifest.content.kind}; compare on curated documents")
    check_files(folder, manifest)
    for entry in manifest.content.shards["kept"]:
        table = read_documents((folder / entry.path).read_bytes(), entry)
        yield table.select([name for name in table.column_names if name in _COLUMNS])


def file_tables(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Yield text files (UTF-8), each as one document whose source is its path.

    Raises:
        InputError: a file cannot be read, or is not UTF-8.
    """
    for path in paths:
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 text: {error}") from None
        yield pa.table({"text": pa.array([text], pa.large_string()), "source": [str(path)]})


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table where its text reaches `_BATCH_BYTES`."""
    ends = np.concatenate([[0], np.cumsum(pc.binary_length(table["text"]).to_numpy())])
    start = 0
    while start < len(table):
        stop = int(np.searchsorted(ends, ends[start] + _BATCH_BYTES, side="right")) - 1
        stop = max(stop, start + 1)
        yield table.slice(start, stop - start)
        start = stop


def _measure(table: pa.Table, a: Tokenizer, b: Tokenizer) -> npt.NDArray[np.int64]:
    """Return int64[n, 7]: documents, bytes, words, tokens of a and b, failures of a and b."""
    texts = table["text"].cast(pa.large_string()).combine_chunks()
    counts = np.zeros((len(texts), 7), np.int64)
    counts[:, 0] = 1
    counts[:, 1] = pc.binary_length(texts)
    counts[:, 2] = pc.count_substring_regex(texts, _WORD)
    for place, tokenizer in enumerate((a, b)):
        ids, cuts = tokenizer.encode_batch(texts)
        counts[:, 3 + place] = np.diff(cuts)
        counts[tokenizer.check_lossless(texts, ids, cuts), 5 + place] = 1
    return counts


def _add(
    sums: dict[str, npt.NDArray[np.int64]], labels: pa.Array, counts: npt.NDArray[np.int64]
) -> None:
    """Add documents to the sums of their labels."""
    encoded = labels.dictionary_encode()
    indices = encoded.indices.to_numpy()
    for place, label in enumerate(encoded.dictionary.to_pylist()):
        sums[label] = sums.get(label, 0) + counts[indices == place].sum(axis=0)


def _row(counts: npt.NDArray[np.int64]) -> Row:
    documents, size, words, *rest = counts.tolist()

    def score(tokens: int, failures: int) -> Score:
        fertility = (tokens - documents) / words if words else 0.0
        return Score(tokens, size / tokens if tokens else 0.0, fertility, failures)

    return Row(documents, size, words, score(rest[0], rest[2]), score(rest[1], rest[3]))


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer.name, tokenizer.vocab_size, tokenizer.sha256, tokenizer.pieces_hash)
