"""Kernels that copy token ranges of a view out of mapped shards into a batch buffer.

One call finds, checks and fills a whole batch: at 1024 tokens a sample the Python around a numpy
copy costs more than the copy. The token streams are given by address, because numba cannot take a
list of arrays with explicit signatures; the caller keeps the mappings alive.

Arguments that the kernels share:

    places      int64[S, 3], for each shard the address of its token stream in memory, the stream's
                position in its file, and the index of its block 0 in `verified`
    itemsize    2 (uint16) or 4 (uint32) bytes a token
    verified    uint8[blocks of all shards], 1 where the block's hash was checked
    segments    int64[G, 2], shard and first token of each segment of the view
    cumulative  int64[G + 1], tokens of the view before each segment
    first_row   row to start at
    out         int64[B, >= longest row]

All return the first row that touches an unverified block (it and later rows are not complete), or
`FULL` when all rows are filled, and `SHORT` when some of them are filled up with EOS.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.extending import intrinsic

from shards.hashing import BLOCK_BYTES
from shards.jit import inline, kernel
from shards.order import order_samples

FULL, SHORT = -1, -2
"""What a kernel returns that has filled all rows."""

_CACHE_LINE = 64

_AHEAD = 2
"""Rows that are fetched before their turn. Into the second-level cache: a row has 32 lines and
more, and the first level has fewer places for lines on their way (13.2 µs a batch before, 9.8
with it)."""


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:
    """Turn an integer address into a `void*` that `numba.carray` accepts."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.uintp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typingctx: Any, address: Any) -> Any:
    """Ask the processor to fetch the cache line at an integer address; it never faults."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag = cgutils.ir.IntType(32)
        pointer = cgutils.ir.IntType(8).as_pointer()
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [pointer, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        at = builder.inttoptr(args[0], pointer)
        builder.call(function, [at, flag(0), flag(2), flag(1)])  # read, into L2, data
        return context.get_dummy_value()

    return types.void(types.uintp), codegen


@inline
def _fetch_ahead(
    places: Any, itemsize: Any, segments: Any, cumulative: Any, position: Any, length: Any
) -> None:
    """Start loading the tokens of the stream from `position`, up to the segment's end."""
    segment = np.searchsorted(cumulative, position, side="right") - 1
    offset = position - cumulative[segment]
    count = min(length, cumulative[segment + 1] - position)
    address = places[segments[segment, 0], 0]
    if address:  # else the shard is not open yet
        first = address + (segments[segment, 1] + offset) * itemsize
        for at in range(first, first + count * itemsize, _CACHE_LINE):
            _prefetch(np.uint64(at))


@inline
def _copy(
    places: Any,
    itemsize: Any,
    verified: Any,
    segments: Any,
    cumulative: Any,
    position: Any,
    length: Any,
    row: Any,
) -> Any:
    """Widen `length` tokens of the stream from `position` into `row`; False at a bad block."""
    done = 0
    segment = np.searchsorted(cumulative, position, side="right") - 1
    while done < length:
        offset = position + done - cumulative[segment]
        count = min(length - done, cumulative[segment + 1] - cumulative[segment] - offset)
        if count > 0:
            address, stream_at, block_0 = places[segments[segment, 0]]
            first = (segments[segment, 1] + offset) * itemsize
            low = (stream_at + first) // BLOCK_BYTES
            high = (stream_at + first + count * itemsize - 1) // BLOCK_BYTES
            for block in range(block_0 + low, block_0 + high + 1):
                if verified[block] == 0:
                    return False
            target = row[done : done + count]  # a slice, so that the loops become SIMD
            pointer = _pointer(np.uint64(address + first))
            if itemsize == 2:
                narrow = numba.carray(pointer, (count,), np.uint16)
                for i in range(count):
                    target[i] = narrow[i]
            else:
                wide = numba.carray(pointer, (count,), np.uint32)
                for i in range(count):
                    target[i] = wide[i]
            done += count
        segment += 1
    return True


_VIEW = "int64[:, ::1], int64, uint8[::1], int64[:, ::1], int64[::1]"
_OUT = "int64[::1], int64[:, ::1]"


@kernel(f"int64({_VIEW}, int64[::1], int64[::1], int64, int64[:, ::1])")
def gather(
    places: npt.NDArray[np.int64],
    itemsize: int,
    verified: npt.NDArray[np.uint8],
    segments: npt.NDArray[np.int64],
    cumulative: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    first_row: int,
    out: npt.NDArray[np.int64],
) -> int:
    """Copy the ranges [starts, starts + lengths), int64[B], of a view's token stream."""
    for row in range(first_row, starts.shape[0]):
        if not _copy(
            places, itemsize, verified, segments, cumulative, starts[row], lengths[row], out[row]
        ):
            return row
    return FULL


_SAMPLES = "int64[::1], int64, int64, int64, int64, int64, int64"


@kernel(f"int64({_VIEW}, {_SAMPLES}, int64[::1], int64, int64[:, ::1])")
def gather_samples(
    places: npt.NDArray[np.int64],
    itemsize: int,
    verified: npt.NDArray[np.uint8],
    segments: npt.NDArray[np.int64],
    cumulative: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    samples: int,
    seed: int,
    chunk: int,
    chunks: int,
    T: int,
    eos: int,
    lengths: npt.NDArray[np.int64],
    first_row: int,
    out: npt.NDArray[np.int64],
) -> int:
    """Copy the samples at global indices, in the order of `shards.order`, padded with EOS.

    Args:
        indices: int64[B], global sample indices.
        samples, seed: samples of an epoch, and the seed of their order.
        chunk, chunks: of the windowed order; chunk 0 is the order without windows.
        T: tokens a sample, without the one after it; `out` is int64[B, T + 1].
        eos: what fills a row beyond its length.
        lengths: int64[B], written: tokens of each row that are the sample's.
    """
    tokens, count = cumulative[-1], indices.shape[0]
    starts = np.empty(count, np.int64)
    order_samples(indices, samples, seed, chunk, chunks, starts)
    whole = True
    for row in range(count):
        starts[row] *= T
        lengths[row] = min(T + 1, tokens - starts[row])
        whole = whole and lengths[row] > T
    # Samples lie far apart, so that the processor cannot guess where the next one starts.
    for row in range(first_row, min(first_row + _AHEAD, count)):
        _fetch_ahead(places, itemsize, segments, cumulative, starts[row], lengths[row])
    for row in range(first_row, count):
        later = row + _AHEAD
        if later < count:
            _fetch_ahead(places, itemsize, segments, cumulative, starts[later], lengths[later])
        length = lengths[row]
        if not _copy(
            places, itemsize, verified, segments, cumulative, starts[row], length, out[row]
        ):
            return row
        out[row, length:] = eos
    return FULL if whole else SHORT


@kernel(f"int64({_VIEW}, int64[::1], int64[::1], int64[::1], int64[::1], int64, int64, {_OUT})")
def gather_packed(
    places: npt.NDArray[np.int64],
    itemsize: int,
    verified: npt.NDArray[np.uint8],
    segments: npt.NDArray[np.int64],
    cumulative: npt.NDArray[np.int64],
    packed: npt.NDArray[np.int64],
    first_piece: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    piece_lengths: npt.NDArray[np.int64],
    eos: int,
    first_row: int,
    lengths: npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
) -> int:
    """Copy packed rows, each of several ranges of the stream one after the other, padded with EOS.

    Args:
        packed: int64[B], which rows of the plan.
        first_piece, starts, piece_lengths: the plan, as in `shards.packing.Packing`.
        eos: what fills a row beyond its length.
        lengths: int64[B], written: tokens of each row that are not padding.
    """
    whole = True
    for row in range(packed.shape[0]):
        first, end = first_piece[packed[row]], first_piece[packed[row] + 1]
        lengths[row] = piece_lengths[first:end].sum()
        whole = whole and lengths[row] == out.shape[1]
    for row in range(first_row, packed.shape[0]):
        at = 0
        for piece in range(first_piece[packed[row]], first_piece[packed[row] + 1]):
            size = piece_lengths[piece]
            if not _copy(
                places,
                itemsize,
                verified,
                segments,
                cumulative,
                starts[piece],
                size,
                out[row, at:],
            ):
                return row
            at += size
        out[row, at:] = eos
    return FULL if whole else SHORT
