"""Text as kernels read it: one flat UTF-8 buffer and the offsets that cut it into documents."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class _Memory:
    """Shows an Arrow buffer to numpy as writable, and keeps it alive.

    numba signatures such as `uint8[::1]` refuse read-only arrays, which is what `np.frombuffer`
    makes of most Arrow buffers. Kernels only read text, so the flag is dropped instead of the
    text being copied; writing through such a view is a bug (it may be a read-only file mapping).
    """

    def __init__(self, buffer: pa.Buffer, dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        self.buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "shape": (buffer.size // kind.itemsize,),
            "typestr": kind.str,
            "data": (buffer.address, False),
        }


def flat(array: pa.Array | pa.ChunkedArray) -> tuple[Bytes, Offsets]:
    """Return `data: uint8[::1]` and `offsets: int64[::1]` (n + 1) of n strings without nulls.

    Document i is `data[offsets[i]:offsets[i + 1]]`, UTF-8. `offsets[0]` is not 0 where the array is
    a slice. Both are views of the array's own memory for one chunk of `large_string`; a `string`
    array copies its offsets, several chunks are joined first. Do not write into either.

    Raises:
        TypeError: `array` holds something else than strings.
        ValueError: `array` has nulls (a null has no bytes, and no kernel could tell it from '').
    """
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise TypeError(f"flat() needs strings, not {array.type}")
    if array.null_count:
        raise ValueError(f"flat() needs strings without nulls, got {array.null_count} nulls")
    if isinstance(array, pa.ChunkedArray):
        # Widen before joining: 32-bit offsets of the joined text would overflow at 2 GiB.
        array = array.cast(pa.large_string())
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    if len(array) == 0:  # Arrow allows an empty array to have no buffers at all
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    cuts = np.asarray(_Memory(offsets, np.int64))[array.offset : array.offset + len(array) + 1]
    if data is None or data.size == 0:
        return np.zeros(0, np.uint8), cuts
    return np.asarray(_Memory(data, np.uint8)), cuts
