"""The few vector instructions that numba does not reach by itself, as LLVM intrinsics.

Numba widens byte arithmetic to 64 bits, which keeps LLVM from using byte vectors. These work on
`BLOCK` = 64 bytes at a time in portable LLVM vectors: one AVX-512 register, two of AVX2, four of
SSE or NEON. The caller answers for the bounds.
"""

import sys
from typing import Any

from numba import types
from numba.core.cgutils import ir  # llvmlite's, of the version that numba builds on
from numba.extending import intrinsic

BLOCK = 64
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(_I8, BLOCK)


def _pointer(context: Any, builder: Any, type_: Any, array: Any, at: Any) -> Any:
    """Return a pointer to `array[at : at + BLOCK]` as one vector."""
    data = context.make_array(type_)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _BYTES.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    """Return a vector of `value`'s low byte."""
    undefined = ir.Constant(_BYTES, ir.Undefined)
    one = builder.insert_element(undefined, builder.trunc(value, _I8), ir.Constant(_I32, 0))
    places = ir.Constant(ir.VectorType(_I32, BLOCK), [0] * BLOCK)
    return builder.shuffle_vector(one, undefined, places)


def _in_range(builder: Any, block: Any, first: Any, last: Any) -> Any:
    """Compare each byte with [first, last]: <64 x i1>."""
    low, width = _splat(builder, first), _splat(builder, builder.sub(last, first))
    return builder.icmp_unsigned("<=", builder.sub(block, low), width)


@intrinsic  # type: ignore[untyped-decorator]
def range_mask(typing_context: Any, array: Any, at: Any, first: Any, last: Any) -> Any:
    """`range_mask(array, at, first, last)`: uint64, bit i set where byte at + i is in the range."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, first, last = arguments
        block = builder.load(_pointer(context, builder, signature.args[0], array, at), align=1)
        return builder.bitcast(_in_range(builder, block, first, last), _I64)

    return types.uint64(array, types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def copy_spaced(typing_context: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    """`copy_spaced(source, at, target, to)`: copy a block, with spaces for U+0009–000D."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, target, to = arguments
        block = builder.load(_pointer(context, builder, signature.args[0], source, at), align=1)
        white = _in_range(builder, block, ir.Constant(_I64, 0x09), ir.Constant(_I64, 0x0D))
        spaced = builder.select(white, _splat(builder, ir.Constant(_I64, 0x20)), block)
        builder.store(spaced, _pointer(context, builder, signature.args[2], target, to), align=1)
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typing_context: Any, array: Any, at: Any) -> Any:
    """`load_word(array, at)`: uint64, the eight bytes from `at`, the first in the lowest bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        pointer = builder.bitcast(builder.gep(data, [at]), _I64.as_pointer())
        word = builder.load(pointer, align=1)
        return word if sys.byteorder == "little" else builder.bswap(word)

    return types.uint64(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(typing_context: Any, value: Any) -> Any:
    """`trailing_zeros(value)`: int64, the place of the lowest set bit of a uint64 (not of 0)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
