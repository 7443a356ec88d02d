"""The processor's prefetch instruction, which numba does not reach by itself."""

from typing import Any

from numba import types
from numba.core.cgutils import get_or_insert_function, ir
from numba.extending import intrinsic

_I32 = ir.IntType(32)
_VOID_POINTER = ir.IntType(8).as_pointer()
_READ, _KEEP, _DATA = 0, 3, 1


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, at: Any) -> Any:
    """`prefetch(array, at)`: begin to load `array[at]` into the cache; changes nothing else.

    Where a table is larger than the cache, waiting for memory is most of a look-up's time; asked
    for some steps ahead, many loads are under way at once.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), _VOID_POINTER)
        type_ = ir.FunctionType(ir.VoidType(), [_VOID_POINTER, _I32, _I32, _I32])
        function = get_or_insert_function(builder.module, type_, "llvm.prefetch")
        builder.call(function, [pointer, _I32(_READ), _I32(_KEEP), _I32(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
