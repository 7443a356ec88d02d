"""The facts of a sentencepiece model file that its Python class does not tell.

A model is one protocol buffer message (`sentencepiece_model.proto`). Its generated Python module is
not used: it fails beside Beam's protobuf. What is needed of the wire format is a dozen lines
("Protocol Buffers: Encoding": a message is a row of (field number and wire type, value)).
"""

import struct
from collections.abc import Iterator

import msgspec

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""`SentencePiece.Type`."""

_BPE = 2
"""`TrainerSpec.ModelType`."""

Value = int | bytes


class Piece(msgspec.Struct, frozen=True):
    """One entry of the vocabulary; `kind` is one of the types above."""

    text: str
    score: float
    kind: int


class Model(msgspec.Struct, frozen=True):
    """`pieces` by id; `plain` tells whether text reaches plain BPE with byte fallback as it is.

    That is: no character map, no dummy prefix, no white space removed, spaces written as U+2581.
    """

    pieces: list[Piece]
    plain: bool


def read_model_proto(data: bytes) -> Model:
    """Read the bytes of a model file that sentencepiece has accepted.

    Raises:
        ValueError: not such a file.
    """
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                entry = dict(_fields(value))
                (score,) = struct.unpack("<f", _bytes(entry.get(2, bytes(4))))
                text = _bytes(entry.get(1, b"")).decode()
                pieces.append(Piece(text, score, int(entry.get(3, NORMAL))))
            elif number == 2 and isinstance(value, bytes):
                trainer = dict(_fields(value))
            elif number == 3 and isinstance(value, bytes):
                normalizer = dict(_fields(value))
    except (IndexError, TypeError, struct.error) as error:
        raise ValueError(f"not a sentencepiece model: {error}") from None
    plain = (
        trainer.get(3) == _BPE  # model_type
        and trainer.get(35) == 1  # byte_fallback
        and not normalizer.get(2)  # precompiled_charsmap
        and normalizer.get(3, 1) == 0  # add_dummy_prefix
        and normalizer.get(4, 1) == 0  # remove_extra_whitespaces
        and normalizer.get(5, 1) == 1  # escape_whitespaces
    )
    return Model(pieces, plain)


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value): an integer for varints, bytes for the rest."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[wire] if wire in {1, 5} else len(data)
        if at + size > len(data):
            raise IndexError(f"field {tag >> 3} at byte {at} ends beyond the file")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number where bytes should be")
    return value
