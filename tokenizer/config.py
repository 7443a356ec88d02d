"""The `[tokenizer]` table of a recipe."""

from typing import Annotated

import msgspec

SMALLEST = 259
"""Smallest vocabulary: 256 bytes, 2 special ids and one piece; more follows from the text."""


class TokenizerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides a tokenizer, beside the documents that it is trained on.

    `sample_bytes` is how much UTF-8 text to train on (expected, since documents are chosen by
    hash); `character_coverage` is the share of characters that get a piece of their own, the rest
    becomes byte pieces; `salt` chooses another sample. Byte fallback, the identity normaliser and
    the absence of a dummy prefix are not options: without them a tokenizer is not lossless.
    """

    model_type: str = "bpe"
    vocab_size: Annotated[int, msgspec.Meta(ge=SMALLEST, le=1 << 20)] = 4096
    sample_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16_000_000
    character_coverage: Annotated[float, msgspec.Meta(ge=0.9, le=1.0)] = 0.9995
    salt: str = ""

    def __post_init__(self) -> None:
        if self.model_type == "unigram":
            raise ValueError(
                "model_type 'unigram' is refused: sentencepiece's unigram trainer gives other"
                " pieces for another number of threads, so the tokenizer could not be made"
                " again; use 'bpe'"
            )
        if self.model_type != "bpe":
            raise ValueError(f"model_type {self.model_type!r} is unknown; use 'bpe'")


def definitions() -> dict[str, str]:
    """Return name → version of what decides a tokenizer beside recipe and documents."""
    return {"tokenizer": "sentencepiece-bpe-lossless-v1", "sample": "text-hash-v1"}
