"""What a document adds to a corpus: its bits per byte, given a long window of that corpus.

The window is a sample of the base, so that it depends on neither workers nor order: documents
by their hash (xxh3-128), each once, their first `PIECE_BYTES`, up to `WINDOW_BYTES`. There are two,
one of the documents whose hash is even and one of the odd; a document is measured by the one that
it and its copies cannot be in, or what stands in the sample would seem to add nothing.

So it is what a document adds to 2 MiB of the base by hash, not to all documents before it: what
many documents share is seen, one twin most often is not. `curate/bits.py` has the price of a whole
shard in one window.

Measured is a zstd frame whose dictionary is the window (RFC 8878, raw content): what repeats it in
5 bytes or more is a reference, the rest as in any frame. The parameters are fixed. A level's own
hash tables would know only the last tenth of the window.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from pipelines.quality.compression import LIBZSTD

WINDOW_BYTES = 2 << 20
PIECE_BYTES = 64 << 10
"""A longer document gives the window only so much, so that books do not make it up alone."""

VERSION = f"zstd-window-v1 ({WINDOW_BYTES >> 20} MiB, {LIBZSTD})"

_FAST_LOG = 19
"""Entries of the two hash tables, as a power of 2: one for 4 bytes of the window."""

Windows = tuple[bytes, bytes]


def windows(base: Iterable[bytes]) -> Windows:
    """Return the windows of a base (documents, UTF-8): of those of even hash, and of odd."""
    hashed = sorted({xxhash.xxh3_128_digest(text): text for text in base}.items())
    halves = []
    for half in (0, 1):
        pieces = [text[:PIECE_BYTES] for digest, text in hashed if digest[-1] & 1 == half]
        halves.append(b"".join(pieces)[:WINDOW_BYTES])
    return halves[0], halves[1]


def marginal_bpb(
    known: Windows, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return 8 · compressed bytes / bytes of each document given the other half's window.

    Args:
        known: what `windows` returned.
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        float32 (n); 0 for empty documents.
    """
    compressors = [_compressor(known[1]), _compressor(known[0])]
    view = data.data
    sizes = np.zeros(len(offsets) - 1, np.float64)
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        text = view[begin:end]
        if end > begin:
            half = xxhash.xxh3_128_digest(text)[-1] & 1
            sizes[row] = len(compressors[half].compress(text))
    return (8 * sizes / np.maximum(np.diff(offsets), 1)).astype(np.float32)


def _compressor(window: bytes) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        window_log=23,
        hash_log=_FAST_LOG,
        chain_log=_FAST_LOG,
        search_log=1,
        min_match=5,
        target_length=0,
        strategy=zstandard.STRATEGY_DFAST,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    if not window:
        return zstandard.ZstdCompressor(compression_params=parameters)
    kind = zstandard.DICT_TYPE_RAWCONTENT
    digested = zstandard.ZstdCompressionDict(window, dict_type=kind)
    digested.precompute_compress(compression_params=parameters)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=digested)
