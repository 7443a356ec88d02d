"""A tokenizer that gives back every text: sentencepiece, with its one hole closed.

sentencepiece writes a space as U+2581 and cannot tell the two apart on the way back. So text is
cut at U+2581, and that character becomes the byte pieces of its three UTF-8 bytes. Decoding joins
the bytes that each piece stands for; it never asks sentencepiece, whose decoder replaces what is
not UTF-8. Text without U+2581 gets exactly sentencepiece's ids, followed by EOS.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencepiece

from shards.errors import DatasetError
from shards.hashing import canonical_json
from shards.text import flat

if TYPE_CHECKING:
    from tokenizer.fast import FastEncoder

Ids = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.int64]
Texts: TypeAlias = "Sequence[str] | pa.Array"

_FAST_BYTES = 1 << 18
"""From this much text on, a batch pays for the fast encoder's tables (0.6 s at 32,768 pieces)."""

_SPACE = "\u2581"
_SPACE_BYTES = _SPACE.encode()
_PROBE = f" a  b\n\n{_SPACE}\t\0 \u00e9\U0001f600</s><0x41> "


class Tokenizer:
    """A loaded sentencepiece model that has been checked to be lossless.

    sha256: hex sha256 of the model file.
    pieces_hash: hex sha256 over all (piece, score): equal for two model files that encode alike
        and differ only in what they record of their training.
    vocab_size, eos_id: as in the model; `dtype` is uint16 for up to 65536 ids, uint32 above.
    """

    def __init__(self, model: bytes, name: str = "tokenizer", *, lossy: bool = False) -> None:
        """Load a model from its bytes; `name` stands in error messages.

        `lossy` lets models pass that lose text, only to be measured.

        Raises:
            DatasetError: not a sentencepiece model, or one that loses text.
        """
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
            self.vocab_size = int(processor.vocab_size())
        except RuntimeError as error:
            raise DatasetError(f"{name}: not a sentencepiece model: {error}") from None
        if not model or not self.vocab_size:
            raise DatasetError(f"{name}: not a sentencepiece model: it is empty")
        self._processor = processor
        self._model = model
        self._fast: FastEncoder | None = None
        self._fast_was_built = False
        self._lock = threading.Lock()
        self.name = name
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.eos_id = int(processor.eos_id())
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)
        pieces = [processor.IdToPiece(i) for i in range(self.vocab_size)]
        scores = [processor.GetScore(i) for i in range(self.vocab_size)]
        self.pieces_hash = hashlib.sha256(canonical_json([pieces, scores])).hexdigest()
        self.piece_bytes = [self._bytes_of(i, piece) for i, piece in enumerate(pieces)]
        """What each id stands for; nothing for special ids."""
        self._space_ids = [processor.PieceToId(f"<0x{byte:02X}>") for byte in _SPACE_BYTES]
        self._check(lossy)

    @classmethod
    def load(cls, path: str | Path, *, lossy: bool = False) -> "Tokenizer":
        """Load a tokenizer folder, or a sentencepiece model file.

        Raises:
            DatasetError: no such file, not a model, or a model that loses text.
            CorruptError: the model is not the one that the folder's `tokenizer.json` describes.
        """
        from tokenizer.folder import read_model

        return cls(read_model(Path(path)), str(path), lossy=lossy)

    @property
    def facts(self) -> dict[str, str | int]:
        """What a manifest of tokens states about its tokenizer."""
        return {
            "sha256": self.sha256,
            "pieces_hash": self.pieces_hash,
            "vocab_size": self.vocab_size,
            "eos_id": self.eos_id,
        }

    def encode_batch(self, texts: Texts, *, threads: int = 1) -> tuple[Ids, Offsets]:
        """Encode n documents.

        Large batches go through our own kernel (`tokenizer.fast`) where it gives sentencepiece's
        ids; the result does not tell which of the two it was.

        Args:
            texts: n strings without nulls; Arrow's are not decoded on the way.
            threads: threads inside sentencepiece (the kernel takes one); the result does not
                depend on them.

        Returns:
            ids (`dtype`, flat; each document ends with EOS) and offsets (int64[n + 1]).

        Raises:
            UnicodeEncodeError: a Python string with a lone surrogate, which has no UTF-8.
        """
        if isinstance(texts, pa.Array):
            text, cuts = flat(texts)
            fast = self._fast_encoder(int(cuts[-1] - cuts[0]))
            if fast is not None:
                with self._lock:  # it learns as it goes
                    return fast.encode(text, cuts, self._encode_pieces)
            strings = texts.cast(pa.large_binary()).to_pylist()
        else:
            strings = [text.encode() for text in texts]
        encoded: list[npt.NDArray[np.int32]] = []
        if strings:
            encoded = self._processor.EncodeAsNumpy(strings, num_threads=threads, add_eos=True)
        for i, string in enumerate(strings):
            if _SPACE_BYTES in string:
                encoded[i] = self._encode_pieces(string)
        offsets = np.zeros(len(strings) + 1, np.int64)
        np.cumsum([len(ids) for ids in encoded], out=offsets[1:])
        ids = np.empty(offsets[-1], self.dtype)
        if encoded:
            np.concatenate(encoded, out=ids, casting="unsafe")
        return ids, offsets

    def encode(self, text: str) -> Ids:
        """Encode one document: ids with EOS."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that ids stand for; special ids stand for none.

        Bytes that are not UTF-8, as at a cut inside a character, become U+FFFD.
        """
        return b"".join(self.piece_bytes[i] for i in ids).decode("utf-8", errors="replace")

    def check_lossless(self, texts: Texts, ids: Ids, offsets: Offsets) -> npt.NDArray[np.int64]:
        """Return the indices of the documents whose tokens do not spell their text.

        A document also fails if its tokens do not end with EOS or hold a special id before that.

        Args:
            texts: n strings; ids, offsets: as `encode_batch` returns them.
        """
        from tokenizer.lossless import compare  # numba: half a second to import

        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        text, text_offsets = flat(array)
        pieces = np.frombuffer(bytearray(b"".join(self.piece_bytes)), np.uint8)
        piece_offsets = np.zeros(self.vocab_size + 1, np.int64)
        np.cumsum([len(piece) for piece in self.piece_bytes], out=piece_offsets[1:])
        equal = np.zeros(len(array), np.bool_)
        compare(text, text_offsets, ids, offsets, pieces, piece_offsets, self.eos_id, equal)
        return np.flatnonzero(~equal)

    def _fast_encoder(self, size: int) -> "FastEncoder | None":
        """Return the encoder for a batch of `size` bytes: None means sentencepiece."""
        if not self._fast_was_built and size >= _FAST_BYTES:
            from tokenizer.fast import FastEncoder  # numba: half a second to import

            with self._lock:
                self._fast = FastEncoder.build(self._model, self.eos_id, self._encode_pieces)
                self._fast_was_built = True
        return self._fast

    def _encode_pieces(self, text: bytes) -> npt.NDArray[np.int32]:
        """Encode one text with sentencepiece, whether it holds U+2581 or not; EOS last."""
        ids: list[int] = []
        for i, part in enumerate(text.split(_SPACE_BYTES)):
            ids += self._space_ids if i else ()
            ids += self._processor.EncodeAsIds(part)
        return np.array([*ids, self.eos_id], np.int32)

    def _bytes_of(self, i: int, piece: str) -> bytes:
        if self._processor.IsByte(i):
            return bytes([int(piece[1:-1], 16)])
        if self._processor.IsControl(i) or self._processor.IsUnknown(i):
            return b""
        return piece.replace(_SPACE, " ").encode()

    def _check(self, lossy: bool) -> None:
        """Refuse models that lose text, such as those with a normaliser or a dummy prefix."""
        if self.eos_id < 0:
            raise DatasetError(f"{self.name}: the model has no end-of-document id (</s>)")
        decoded = _PROBE if lossy else self.decode(self.encode(_PROBE))
        if decoded != _PROBE:
            raise DatasetError(
                f"{self.name}: the model loses text: {_PROBE!r} becomes {decoded!r}; it needs byte"
                " fallback, the identity normaliser and no dummy prefix: train one with"
                " `assay tokenizer train`"
            )
