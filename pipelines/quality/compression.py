"""Bits per byte of each document under zstd: alone, or given a dictionary of good text."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import zstandard

LIBZSTD = f"libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"
VERSION = f"zstd-magicless-v1 ({LIBZSTD})"

DICTIONARY_BYTES = 110 << 10
_SAMPLE_BYTES = 16 << 10
_LEAST_SAMPLE_BYTES = 64
_COVER_K, _COVER_D = 1024, 8
"""COVER's segment and d-mer lengths: within what its optimiser chooses for text."""


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
    incompressible: compare documents of like length only (`lengths.py`).
    """
    compressor = zstandard.ZstdCompressor(compression_params=_parameters(level))
    return _bpb(compressor, data, offsets)


def zstd_dictionary(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], level: int
) -> bytes:
    """Train a dictionary of up to `DICTIONARY_BYTES` on reference documents.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        level: the level that it will be used with.

    COVER with fixed parameters in one thread, so that the same documents in the same order give
    the same bytes with the same libzstd.

    Raises:
        ValueError: too little text to train on.
    """
    view = data.data
    samples: list[bytes | bytearray | memoryview] = [
        bytes(view[begin : min(end, begin + _SAMPLE_BYTES)])
        for begin, end in pairwise(offsets.tolist())
        if end - begin >= _LEAST_SAMPLE_BYTES
    ]
    try:
        trained = zstandard.train_dictionary(
            DICTIONARY_BYTES, samples, k=_COVER_K, d=_COVER_D, level=level, threads=0
        )
    except zstandard.ZstdError as error:
        raise ValueError(
            f"{len(samples)} documents of {_LEAST_SAMPLE_BYTES} bytes or more make no zstd"
            f" dictionary ({error})"
        ) from None
    return trained.as_bytes()


def zstd_dictionary_bpb(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], dictionary: bytes, level: int
) -> npt.NDArray[np.float32]:
    """Return `zstd_bpb` conditional on a dictionary of good text, float32 (n).

    A digested dictionary's level silently overrides the compressor's, and digesting with parameters
    that name a level forgets it and takes 3; so the same level is given to both, alone.
    """
    parameters = _parameters(level)
    digested = zstandard.ZstdCompressionDict(dictionary)
    digested.precompute_compress(level=level)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=digested)
    return _bpb(compressor, data, offsets)


def _parameters(level: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        compression_level=level,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )


def _bpb(
    compressor: zstandard.ZstdCompressor,
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    compress, view = compressor.compress, data.data
    cuts = offsets.tolist()
    sizes = np.array(
        [len(compress(view[begin:end])) for begin, end in pairwise(cuts)],
        np.float64,
    )
    lengths = np.diff(offsets)
    bits = np.where(lengths > 0, 8 * sizes, 0)
    return (bits / np.maximum(lengths, 1)).astype(np.float32)
