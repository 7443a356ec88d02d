"""One way to compile kernels, so that each is compiled once and then read from a cache.

Explicit signatures make numba compile when the module is imported, and `cache=True` keeps the
machine code next to the source: a prototype without either took 23 s to compile in every worker
and every test process.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(
    signature: str | list[str], *, parallel: bool = False, reassociate: bool = False
) -> Callable[[F], F]:
    """Compile a function with numba for one or more explicit signatures, without the GIL.

    Args:
        signature: numba signature(s), such as `"void(uint8[::1], int64[::1], uint32[:, ::1])"`.
        parallel: let numba use threads (`prange`); results must not depend on their number.
        reassociate: let floating-point sums run in the order of the CPU's vectors, as BLAS and
            torch do: the same bits on the same CPU, seven times faster for a sum of squares. Never
            for what decides a dataset.
    """

    def compile_(function: F) -> F:
        compiled = numba.njit(
            signature,
            cache=True,
            nogil=True,
            boundscheck=False,
            parallel=parallel,
            fastmath={"reassoc", "contract"} if reassociate else False,
        )(function)
        return cast(F, compiled)

    return compile_


def inline(function: F) -> F:
    """Compile a small helper that other kernels call; its types follow from its callers."""
    return cast(F, numba.njit(cache=True, nogil=True, inline="never")(function))
