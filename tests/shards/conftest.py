"""Small token datasets on disk, whose content a test can compute on its own."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards.cli
from shards.atomic import write_atomic
from shards.dataset import TokenDataset
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry

EOS = 2
MakeTokens = Callable[..., TokenDataset]


def documents_table(lengths: Sequence[int], first: int, vocab_size: int) -> pa.Table:
    """Documents of the given token lengths; document i has doc_id i and column x = i % 10."""
    number = np.arange(first, first + len(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = (np.arange(offsets[-1]) * 7919 + first) % (vocab_size - 3) + 3
    values[offsets[1:] - 1] = EOS
    return pa.table(
        {
            "doc_id": pa.array([int(i).to_bytes(16, "big") for i in number], pa.binary(16)),
            "split": pa.array(["valid" if i % 5 == 0 else "train" for i in number], pa.string()),
            "bytes": pa.array(np.asarray(lengths, np.int64) * 4 + 1),
            "x": pa.array(number % 10),
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(values)),
        }
    )


def build_tokens(folder: Path, *shards: Sequence[int], vocab_size: int = 1000) -> Path:
    """Write a tokens dataset with one shard for each list of document lengths."""
    metadata = TokenMetadata("ab" * 32, vocab_size, EOS)
    entries, documents, tokens = [], 0, 0
    for index, lengths in enumerate(shards):
        data = encode_token_shard(documents_table(lengths, documents, vocab_size), metadata)
        path = f"tokens/{index:05}-of-{len(shards):05}.arrow"
        write_atomic(folder / path, data)
        count = int(sum(lengths))
        entries.append(
            shard_entry(path, data, documents=len(lengths), tokens=count, first_token=tokens)
        )
        documents, tokens = documents + len(lengths), tokens + count
    total = Counts(read=documents, kept=documents, tokens=tokens)
    content = Content(
        kind="tokens",
        shards={"tokens": entries},
        total=total,
        sources={"web": total},
        tokenizer={"sha256": "ab" * 32, "vocab_size": vocab_size, "eos_id": EOS},
    )
    manifest = new_manifest(content, stage_key="5" * 32, run={"host": "here", "seconds": 1.5})
    write_atomic(folder / MANIFEST, encode_manifest(manifest))
    return folder


@pytest.fixture
def make_tokens(tmp_path: Path) -> MakeTokens:
    def make(*shards: Sequence[int], vocab_size: int = 1000) -> TokenDataset:
        return TokenDataset.open(
            build_tokens(tmp_path / "tokens-ds", *shards, vocab_size=vocab_size)
        )

    return make


@pytest.fixture(scope="session")
def big_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of several MiB blocks each; read-only, so shared by tests."""
    lengths = [1 + (i * 31) % 700 for i in range(3000)]
    return build_tokens(tmp_path_factory.mktemp("big"), lengths, lengths[::-1])


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file in place."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `python -m shards ARGS` in this process: (exit code, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["shards", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            shards.cli.program()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run
