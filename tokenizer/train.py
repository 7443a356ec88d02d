"""Train a BPE model on a sample that depends on the documents only, not on their order.

sentencepiece's BPE trainer is deterministic once its sentences are: a document is in the sample if
the hash of its text falls below a threshold, and the sample is sorted before it is cut and fed.

How the model treats text, and why:

- identity normaliser, no dummy prefix, no whitespace removal, byte fallback: decoding gives back
  every input byte;
- pieces of whitespace alone are allowed, because indentation would otherwise be one token a space;
- pieces do not cross spaces or scripts (sentencepiece's defaults), digits stand alone, so that
  numbers are spelt one way only;
- newlines are ordinary characters and merge with punctuation (`.` + newline is a frequent piece);
- tabs and NUL cannot be part of a sentencepiece piece: they are always byte pieces, as is U+2581,
  which sentencepiece uses for a space (see `tokenizer.model`).

Special ids: 0 `<unk>` (sentencepiece demands it; byte fallback never emits it), 1 `</s>`, the end
of a document. There is no beginning-of-document id, since the EOS before it says the same, and no
padding, since rows are cut from one token stream. Byte b is id 2 + b.
"""

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece
import xxhash

from shards.errors import DatasetError, RecipeError
from tokenizer.config import TokenizerConfig

UNK_ID = 0
EOS_ID = 1

CHUNK_CHARACTERS = 2000
"""Longest string fed to the trainer. It silently skips those above `max_sentence_length`."""

_MAX_SENTENCE_BYTES = 4 * CHUNK_CHARACTERS

_UNTRAINABLE = re.compile("[\0\u2581\u2585]")
"""The trainer skips a whole string with NUL or U+2585 in it, and takes U+2581 for a space."""


def in_sample(text: str, share: float, salt: str = "") -> bool:
    """Tell whether a document belongs to the sample: a share of all texts, chosen by hash."""
    seed = xxhash.xxh3_64_intdigest(salt.encode())
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed) < share * 2**64


def training_chunks(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts for the trainer at newlines, and where there is none, anywhere.

    Newlines stay at the start of the next chunk: sentencepiece strips those at the end, and would
    never learn a piece with one. Joined, the chunks of a text give it back, without what the
    trainer cannot take.
    """
    for text in texts:
        for part in _UNTRAINABLE.split(text):
            start = 0
            while len(part) - start > CHUNK_CHARACTERS:
                end = part.rfind("\n", start + 1, start + CHUNK_CHARACTERS)
                end = end if end > start else start + CHUNK_CHARACTERS
                while end - start > 1 and part[end - 1] == "\n":
                    end -= 1
                yield part[start:end]
                start = end
            if start < len(part):
                yield part[start:]


def train_model(sample: Iterable[str], config: TokenizerConfig, *, threads: int = 1) -> bytes:
    """Train on the documents of `sample`, in any order, and return the sentencepiece model file.

    The pieces do not depend on `threads`, but the file does: it records their number. So leave it
    at 1 for what is kept.

    Raises:
        DatasetError: there is nothing to train on.
        RecipeError: the sample is too small for `vocab_size`, or `vocab_size` for its characters.
    """
    model = io.BytesIO()
    chunks = list(training_chunks(sorted(sample)))
    if not any(chunk.strip() for chunk in chunks):
        raise DatasetError("the training sample of the tokenizer has no text")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(chunks),
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            shuffle_input_sentence=False,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            unk_id=UNK_ID,
            eos_id=EOS_ID,
            bos_id=-1,
            pad_id=-1,
            num_threads=threads,
            minloglevel=3,  # what matters comes back as an exception
        )
    except RuntimeError as error:
        raise _explained(str(error), config) from None
    return model.getvalue()


def _explained(message: str, config: TokenizerConfig) -> RecipeError | DatasetError:
    size = f"tokenizer.vocab_size = {config.vocab_size}"
    if limit := re.search(r"set it to a value <= (\d+)", message):
        return RecipeError(
            f"{size}: the training sample is too small for so many pieces; set it to at most"
            f" {limit.group(1)}, or raise tokenizer.sample_bytes or give more text"
        )
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return RecipeError(
            f"{size}: the sample has more characters than that; set it to more than"
            f" {needed.group(1)}, or lower tokenizer.character_coverage"
        )
    return DatasetError(f"sentencepiece could not train a tokenizer: {message}")
