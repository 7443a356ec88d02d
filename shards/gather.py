"""The kernel that copies token ranges of a view out of mapped shards into a batch buffer.

One call fills a whole batch: at 1024 tokens a sample the Python around a numpy copy costs more
than the copy. The token streams are given by address, because numba cannot take a list of arrays
with explicit signatures; the caller keeps the mappings alive.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from shards.hashing import BLOCK_BYTES
from shards.jit import kernel


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:
    """Turn an integer address into a `void*` that `numba.carray` accepts."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.uintp), codegen


@kernel(
    "int64(uint64[::1], int64, int64[::1], int64[::1], uint8[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], int64, int64[:, ::1])"
)
def gather(
    addresses: npt.NDArray[np.uint64],
    itemsize: int,
    stream_at: npt.NDArray[np.int64],
    first_block: npt.NDArray[np.int64],
    verified: npt.NDArray[np.uint8],
    segment_shard: npt.NDArray[np.int64],
    segment_start: npt.NDArray[np.int64],
    cumulative: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    first_row: int,
    out: npt.NDArray[np.int64],
) -> int:
    """Copy ranges of a view's token stream, widened to int64, row by row.

    Args:
        addresses: uint64[S], address of each shard's token stream.
        itemsize: 2 (uint16) or 4 (uint32) bytes a token.
        stream_at: int64[S], position in its file of each shard's token stream.
        first_block: int64[S], index into `verified` of each shard's block 0.
        verified: uint8[blocks of all shards], 1 where the block's hash was checked.
        segment_shard, segment_start: int64[G], shard and first token of each segment.
        cumulative: int64[G + 1], tokens of the view before each segment.
        starts, lengths: int64[B], ranges of the view's stream.
        first_row: row to start at.
        out: int64[B, >= max(lengths)], filled up to each row's length.

    Returns:
        The first row that touches an unverified block (it and later rows are not complete), or -1
        when all rows are filled.
    """
    for row in range(first_row, starts.shape[0]):
        position = starts[row]
        done = 0
        segment = np.searchsorted(cumulative, position, side="right") - 1
        while done < lengths[row]:
            offset = position + done - cumulative[segment]
            count = min(lengths[row] - done, cumulative[segment + 1] - cumulative[segment] - offset)
            if count > 0:
                shard = segment_shard[segment]
                first = segment_start[segment] + offset
                low = (stream_at[shard] + first * itemsize) // BLOCK_BYTES
                high = (stream_at[shard] + (first + count) * itemsize - 1) // BLOCK_BYTES
                for block in range(first_block[shard] + low, first_block[shard] + high + 1):
                    if verified[block] == 0:
                        return row
                address = addresses[shard] + np.uint64(first * itemsize)
                if itemsize == 2:
                    narrow = numba.carray(_pointer(address), (count,), np.uint16)
                    for i in range(count):
                        out[row, done + i] = narrow[i]
                else:
                    wide = numba.carray(_pointer(address), (count,), np.uint32)
                    for i in range(count):
                        out[row, done + i] = wide[i]
                done += count
            segment += 1
    return -1
