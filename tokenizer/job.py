"""Train a tokenizer on the training split of a documents dataset."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import sentencepiece

from shards.errors import DatasetError
from shards.hashing import stable_hash
from shards.manifest import Manifest, check_files, read_manifest
from tokenizer.config import TokenizerConfig, definitions
from tokenizer.documents import read_documents
from tokenizer.folder import Sample, TokenizerInfo, check_output, current_info, write_folder
from tokenizer.model import Tokenizer
from tokenizer.train import EOS_ID, UNK_ID, in_sample, train_model

Progress = Callable[[str], None]
"""Called with what is being done, for a person to read."""


def tokenizer_key(manifest: Manifest, config: TokenizerConfig) -> str:
    """Return the stage key: the documents, the config, the definitions, sentencepiece's version.

    The trainer's details belong to sentencepiece, so another version may give another tokenizer.
    """
    return stable_hash(
        [manifest.dataset_id, config, definitions(), {"sentencepiece": sentencepiece.__version__}]
    )


def train_tokenizer(
    data: Path, out: Path, config: TokenizerConfig, *, progress: Progress | None = None
) -> TokenizerInfo:
    """Train on the kept `train` documents of the dataset in `data`, into the folder `out`.

    Does nothing if `out` already holds that tokenizer.

    Raises:
        DatasetError: `data` is not a documents dataset, lacks a shard, or has no text to train on;
            or `out` holds something else than a tokenizer.
        CorruptError: a shard does not match its recorded size or hash.
        PlatformError: `out` cannot be written to.
        RecipeError: the sample and `vocab_size` do not fit each other.
    """
    say = progress or (lambda text: None)
    manifest = read_manifest(data)
    if manifest.content.kind != "documents":
        raise DatasetError(f"{data}: holds {manifest.content.kind}; train on curated documents")
    key = tokenizer_key(manifest, config)
    if (current := current_info(out, key)) is not None:
        return current
    check_files(data, manifest)
    check_output(out)

    say("choosing the sample")
    share = min(1.0, config.sample_bytes / max(1, manifest.content.total.bytes_kept))
    texts = [
        text for text in _training_texts(data, manifest) if in_sample(text, share, config.salt)
    ]
    sample = Sample(len(texts), sum(len(text.encode()) for text in texts), share)
    if not texts:
        raise DatasetError(
            f"{data}: no document of its training split is in the sample"
            f" (tokenizer.sample_bytes = {config.sample_bytes}): raise it, or curate more text"
        )
    say(f"training on {sample.documents:,} documents, {sample.bytes / 1e6:.1f} MB")
    model = train_model(texts, config)
    tokenizer = Tokenizer(model, str(out))
    info = TokenizerInfo(
        stage_key=key,
        dataset_id=manifest.dataset_id,
        config=config,
        definitions={**definitions(), "sentencepiece": sentencepiece.__version__},
        sample=sample,
        sha256=tokenizer.sha256,
        pieces_hash=tokenizer.pieces_hash,
        vocab_size=tokenizer.vocab_size,
        special_ids={"unk": UNK_ID, "eos": EOS_ID},
    )
    write_folder(out, model, info)
    return info


def _training_texts(data: Path, manifest: Manifest) -> Iterator[str]:
    for entry in manifest.content.shards["kept"]:
        shard = (data / entry.path).read_bytes()
        table = read_documents(shard, entry, ["text", "split"])
        yield from table.filter(pc.equal(table["split"], "train"))["text"].to_pylist()
