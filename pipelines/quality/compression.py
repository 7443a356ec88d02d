"""Intrinsic compressibility: bits per byte of each document under zstd, alone."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import zstandard

VERSION = f"zstd-magicless-v1 (libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))})"


def zstd_bpb(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], level: int
) -> npt.NDArray[np.float32]:
    """Return 8 · compressed bytes / bytes of each document, float32 (n); 0 for empty documents.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        level: zstd's compression level.

    Each document is one frame without magic number, content size, checksum and dictionary id, so
    that 5 bytes remain that are not the text's. Those and the cold start make short documents look
    incompressible: compare documents of like length only. No dictionary is used: digesting one
    with `precompute_compress(level)` would silently override the level given here.
    """
    parameters = zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        compression_level=level,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    compress = zstandard.ZstdCompressor(compression_params=parameters).compress
    view = data.data
    cuts = offsets.tolist()
    sizes = np.array(
        [len(compress(view[begin:end])) for begin, end in pairwise(cuts)],
        np.float64,
    )
    lengths = np.diff(offsets)
    bits = np.where(lengths > 0, 8 * sizes, 0)
    return (bits / np.maximum(lengths, 1)).astype(np.float32)
