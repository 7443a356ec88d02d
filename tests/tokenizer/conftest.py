"""A small tokenizer trained on the source of the standard library, and a documents dataset."""

import argparse
import inspect
import io
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest
from shards.tokens import shard_entry
from tokenizer.config import TokenizerConfig
from tokenizer.model import Tokenizer
from tokenizer.train import train_model


@pytest.fixture(scope="session")
def texts():
    """Some hundred documents of real text."""
    return [
        text
        for source in (argparse, textwrap)
        for text in inspect.getsource(source).split("\n\n\n")
    ]


@pytest.fixture(scope="session")
def config():
    return TokenizerConfig(vocab_size=600)


@pytest.fixture(scope="session")
def model(texts, config):
    return train_model(texts, config)


@pytest.fixture(scope="session")
def tokenizer(model):
    return Tokenizer(model)


@pytest.fixture(scope="session")
def make_table():
    """The function that lays out texts (None: could not be read) as a documents shard."""
    return _make_table


@pytest.fixture(scope="session")
def make_dataset():
    """The function that writes kept tables as a documents dataset, one shard each."""
    return _make_dataset


def _make_table(texts, *, source="code", split="train", reasons=None):
    count = len(texts)
    ids = [xxhash.xxh3_128_digest(f"{source} {split} {text}".encode()) for text in texts]
    columns = {
        "doc_id": pa.array(ids, pa.binary(16)),
        "input": pa.array([0] * count, pa.uint32()),
        "position": pa.array(range(count), pa.int64()),
        "id": pa.array([None] * count, pa.string()),
        "url": pa.array([None] * count, pa.string()),
        "source": pa.array([source] * count, pa.string()),
        "text": pa.array(texts, pa.large_string()),
        "content_hash": pa.array(ids, pa.binary(16)),
        "split": pa.array([split] * count, pa.string()),
        "cluster": pa.array([None] * count, pa.binary(16)),
        "zstd_bpb": pa.array([1.5] * count, pa.float32()),
    }
    if reasons is not None:
        columns["reason"] = pa.array(reasons, pa.string())
        columns["value"] = pa.array([None] * count, pa.float64())
    return pa.table(columns)


def _make_dataset(folder, kept):
    entries, sources = [], {}
    for number, table in enumerate(kept):
        sink = io.BytesIO()
        pq.write_table(table, sink)
        name = f"kept/{number:05d}-of-{len(kept):05d}.parquet"
        (folder / "kept").mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sink.getvalue())
        entries.append(shard_entry(name, sink.getvalue(), documents=len(table)))
        for source, text in zip(
            table["source"].to_pylist(), table["text"].to_pylist(), strict=True
        ):
            counts = sources.setdefault(source, Counts())
            counts.read, counts.kept = counts.read + 1, counts.kept + 1
            counts.bytes_kept += len(text.encode())
    total = Counts(bytes_kept=sum(counts.bytes_kept for counts in sources.values()))
    content = Content(kind="documents", shards={"kept": entries}, total=total, sources=sources)
    manifest = new_manifest(content, stage_key="", run={})
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest
