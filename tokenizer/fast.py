"""Encoding a batch with our own kernel instead of sentencepiece, where the two give equal ids.

Measured on natural text at 32,768 pieces: see docs/design/tokenizer.md. `FastEncoder.build` says
no (None) to models that the kernel does not follow, and to any whose ids differ from
sentencepiece's on a text that holds every piece. Then sentencepiece goes on doing the work.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.text import Bytes, Offsets
from tokenizer.kernels import MAX_SYMBOLS, encode, fill_pairs, fill_wide
from tokenizer.proto import BYTE, CONTROL, NORMAL, UNKNOWN, Model, read_model_proto

Ids = npt.NDArray[np.unsignedinteger[Any]]
EncodeOne = Callable[[bytes], npt.NDArray[np.int32]]
"""Encodes one document (UTF-8) with sentencepiece, EOS included."""

_CACHE_SLOTS = 1 << 18
_ARENA = 1 << 20
_WIDE = 1 << 18
_CODE_POINTS = 0x110000
_ASCII = 128


class FastEncoder:
    """The kernel's tables for one model, and what it remembers of the text so far.

    Not for several threads at a time.
    """

    def __init__(self, model: Model, eos_id: int) -> None:
        """Take a model for which `is_supported` holds."""
        texts = {
            i: piece.text.replace("\u2581", " ")
            for i, piece in enumerate(model.pieces)
            if piece.kind == NORMAL and " " not in piece.text
        }
        symbols = {text: i for i, text in texts.items()}
        for text in texts.values():  # characters that are only found inside pieces
            for character in text:
                symbols.setdefault(character, len(symbols) + len(model.pieces))
        self._symbols = len(model.pieces) + len(symbols)
        self._symbol_of = np.full(_CODE_POINTS, -1, np.int32)
        for text, symbol in symbols.items():
            if len(text) == 1:
                self._symbol_of[ord(text)] = symbol
        self._rank = _ranks(model)
        self._byte_ids = np.zeros(256, np.int32)
        for i, piece in enumerate(model.pieces):
            if piece.kind == BYTE:
                self._byte_ids[int(piece.text[1:-1], 16)] = i
        self._joins, self._wide = _adjacent(texts.values())
        self._keys, self._pieces = _pairs(texts, symbols, self._symbols)
        self._eos_id = eos_id
        self._cache = np.zeros((_CACHE_SLOTS, 4), np.uint64)
        self._arena = np.zeros(_ARENA, np.int32)
        self._used = np.zeros(2, np.int64)
        self._scratch = np.zeros((4, MAX_SYMBOLS + 1), np.int32)
        self._dtype = np.dtype(np.uint16 if len(model.pieces) <= 1 << 16 else np.uint32)

    @classmethod
    def build(cls, data: bytes, eos_id: int, encode_one: EncodeOne) -> "FastEncoder | None":
        """Make an encoder for the model file `data`, or None where it would not be exact."""
        model = read_model_proto(data)
        if not is_supported(model):
            return None
        encoder = cls(model, eos_id)
        pieces = [piece.text for piece in model.pieces]
        probes = ["\u2581".join(pieces), "".join(pieces), "".join(pieces).replace("\u2581", " ")]
        for probe in probes:
            raw = probe.encode()
            text = np.frombuffer(bytearray(raw), np.uint8)
            found, _ = encoder.encode(text, np.array([0, len(raw)], np.int64), encode_one)
            if not np.array_equal(found, encode_one(raw)):
                return None
        return encoder

    def encode(self, text: Bytes, offsets: Offsets, encode_one: EncodeOne) -> tuple[Ids, Offsets]:
        """Encode n documents: flat ids, each document ending with EOS, and int64[n + 1] cuts.

        Args:
            text, offsets: as `shards.text.flat` gives them.
            encode_one: for documents with a segment that is too long for the kernel.
        """
        n = len(offsets) - 1
        out = np.empty(int(offsets[-1] - offsets[0]) + n, self._dtype)
        cuts = np.zeros(n + 1, np.int64)
        first = 0
        while True:
            stopped = encode(
                text,
                offsets,
                self._joins,
                self._wide,
                self._symbol_of,
                self._symbols,
                self._keys,
                self._pieces,
                self._rank,
                self._byte_ids,
                self._eos_id,
                self._cache,
                self._arena,
                self._used,
                self._scratch,
                first,
                out,
                cuts,
            )
            if stopped < 0:
                return out[: cuts[n]].copy(), cuts
            ids = encode_one(text[offsets[stopped] : offsets[stopped + 1]].tobytes())
            start = int(cuts[stopped])
            out[start : start + len(ids)] = ids
            cuts[stopped + 1] = start + len(ids)
            first = stopped + 1


def is_supported(model: Model) -> bool:
    """Tell whether the kernel follows all that sentencepiece does with this model.

    User-defined symbols (never cut) and unused pieces (cut again) are left to sentencepiece, and so
    is a special symbol of one character, which an ordinary text could spell.
    """
    special = [piece for piece in model.pieces if piece.kind in {CONTROL, UNKNOWN}]
    known = all(piece.kind in {NORMAL, BYTE, CONTROL, UNKNOWN} for piece in model.pieces)
    return model.plain and known and all(len(piece.text) > 1 for piece in special)


def _ranks(model: Model) -> npt.NDArray[np.int32]:
    """Rank pieces by score, highest first, equal scores alike."""
    scores = np.array([piece.score for piece in model.pieces])
    _, inverse = np.unique(-scores, return_inverse=True)
    return inverse.astype(np.int32)


def _adjacent(texts: Any) -> tuple[Bytes, Bytes]:
    """Note which characters stand side by side in a piece: ASCII, and all others by hash."""
    pairs = {(a, b) for text in texts for a, b in pairwise(text)}
    points = np.array([(ord(a), ord(b)) for a, b in pairs], np.int64).reshape(-1, 2)
    narrow = (points < _ASCII).all(axis=1)
    joins = np.zeros(_ASCII * _ASCII, np.uint8)
    joins[points[narrow, 0] * _ASCII + points[narrow, 1]] = 1
    wide = np.zeros(_WIDE, np.uint8)
    fill_wide(points[~narrow, 0].copy(), points[~narrow, 1].copy(), wide)
    return joins, wide


def _pairs(
    texts: dict[int, str], symbols: dict[str, int], count: int
) -> tuple[Offsets, npt.NDArray[np.int32]]:
    """Make the table of all two symbols that join to a piece."""
    keys, pieces = [], []
    for i, text in texts.items():
        for cut in range(1, len(text)):
            left, right = symbols.get(text[:cut]), symbols.get(text[cut:])
            if left is not None and right is not None:
                keys.append(left * count + right)
                pieces.append(i)
    size = 1 << (2 * len(keys) + 1).bit_length()
    table_keys, table_pieces = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    fill_pairs(np.array(keys, np.int64), np.array(pieces, np.int32), table_keys, table_pieces)
    return table_keys, table_pieces
