"""A tokens dataset whose texts count up or down: easy with two tokens of context, not with one."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from shards.atomic import write_atomic
from shards.dataset import TokenDataset
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry
from trainer.config import ModelConfig, TrainConfig

EOS = 2
VOCABULARY = 19
DIGITS = VOCABULARY - 3
DOCUMENTS = 300

TINY = TrainConfig(
    model=ModelConfig(dim=16, layers=1, heads=2),
    sequence_length=16,
    batch_size=8,
    steps=12,
    eval_every=4,
    checkpoint_every=3,
    eval_tokens=400,
    threads=1,
)


def counting_table(documents: int = DOCUMENTS, seed: int = 0) -> pa.Table:
    """Even documents count up or down through the digits, odd ones are noise (`dropped`)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 40, documents)
    texts = []
    for i, length in enumerate(lengths):
        walk = rng.integers(DIGITS) + rng.choice([-1, 1]) * np.arange(length)
        noise = rng.integers(0, DIGITS, length)
        texts.append(np.append((walk if i % 2 == 0 else noise) % DIGITS + 3, EOS))
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    number = np.arange(documents)
    return pa.table(
        {
            "doc_id": pa.array([rng.bytes(16) for _ in number], pa.binary(16)),
            "source_id": pa.array((number % 4 == 0).astype(np.uint16)),
            "split": pa.array(np.where(number % 6 == 0, "valid", "train").tolist()),
            "dropped": pa.array(np.where(number % 2 == 0, "", "noise").tolist()),
            "bytes": pa.array(lengths.astype(np.int64)),
            "zstd_bpb": pa.array(np.full(documents, 4.0, np.float32)),
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate(texts))),
        }
    )


def write_dataset(folder: Path, *tables: pa.Table) -> Path:
    """Write a tokens dataset with one shard for each table."""
    entries, first = [], 0
    for index, table in enumerate(tables):
        data = encode_token_shard(table, TokenMetadata("ab" * 32, VOCABULARY, EOS))
        path = f"tokens/{index:05}-of-{len(tables):05}.arrow"
        write_atomic(folder / path, data)
        tokens = len(table["tokens"].combine_chunks().values)
        entries.append(
            shard_entry(path, data, documents=len(table), tokens=tokens, first_token=first)
        )
        first += tokens
    content = Content(
        kind="tokens",
        shards={"tokens": entries},
        total=Counts(tokens=first),
        sources={"one": Counts(), "two": Counts()},
        tokenizer={"sha256": "ab" * 32, "vocab_size": VOCABULARY, "eos_id": EOS},
    )
    write_atomic(
        folder / MANIFEST, encode_manifest(new_manifest(content, stage_key="5" * 32, run={}))
    )
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, read-only."""
    tables = (counting_table(seed=0), counting_table(seed=1))
    return write_dataset(tmp_path_factory.mktemp("data") / "tokens", *tables)


@pytest.fixture(scope="session")
def dataset(folder: Path) -> TokenDataset:
    return TokenDataset.open(folder)


@pytest.fixture
def tiny() -> Callable[..., TrainConfig]:
    """Make the settings of a run of well under a second, with changes."""
    return lambda **changes: msgspec.structs.replace(TINY, **changes)
