"""Selections: boolean expressions in Python syntax over the columns of a dataset.

`split == 'train' and 1.5 < zstd_bpb < 4 and source in ['wiki', 'books']` is parsed with `ast`,
checked against a whitelist of nodes and evaluated column-wise by `pyarrow.compute`; no Python code
is ever run from a recipe. A comparison with a null is false, `!=` and `not in` included, as with
NaN in most languages; so `not x < 3` keeps the rows where `x` is null and `x >= 3` does not.
Floats compare as float64: the float32 column value nearest to 0.1 is not `== 0.1`. Whole numbers
are int64, and one that leaves it is an error.

A token shard has no column `source` but `source_id`, its place in the dataset's sorted names. Who
has these gives them with the batch, and `source` is then the name; a name that is none of them is
an error, since it would silently select nothing (or, with `!=`, everything).
"""

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.config import did_you_mean
from shards.errors import RecipeError

_COMPARE = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC = {  # whole numbers that leave 64 bits are an error: the others would wrap
    ast.Add: pc.add_checked,
    ast.Sub: pc.subtract_checked,
    ast.Mult: pc.multiply_checked,
    ast.Div: pc.divide,
}
SOURCE = "source"
"""The column that `source_id` stands for in a token shard."""

_LOGIC = {ast.And: pc.and_, ast.Or: pc.or_}
_ALLOWED = "and, or, not, comparisons, in [...], + - * /, numbers, strings, True, False and columns"


def columns(expression: str) -> set[str]:
    """Return the names of the columns that `expression` reads.

    Raises:
        RecipeError: the expression is not valid Python syntax.
    """
    return {node.id for node in ast.walk(_parse(expression)) if isinstance(node, ast.Name)}


def select(
    batch: pa.RecordBatch | pa.Table, expression: str, sources: Sequence[str] | None = None
) -> npt.NDArray[np.bool_]:
    """Return `bool[n]`: for each of the n rows of `batch`, whether `expression` holds.

    Args:
        batch: the rows.
        expression: over its columns.
        sources: the names that `source_id` indexes, for a batch without a column `source`.

    Raises:
        RecipeError: syntax that is not allowed, an unknown column, values that cannot be compared,
            a whole number beyond 64 bits, or an expression that is not true or false; each names
            the piece of the expression.
    """
    with _one_kind_of_error(expression):
        chosen = _Evaluation(batch, expression, sources).truth(_parse(expression))
    if isinstance(chosen, pa.Scalar):
        return np.full(batch.num_rows, chosen.as_py(), np.bool_)
    if isinstance(chosen, pa.ChunkedArray):
        chosen = chosen.combine_chunks()
    return np.asarray(chosen.to_numpy(zero_copy_only=False), np.bool_)


def arithmetic(batch: pa.RecordBatch | pa.Table, expression: str) -> npt.NDArray[np.float64]:
    """Return `float64[n]`: arithmetic over columns for each of the n rows; NaN where one is null.

    Raises:
        RecipeError: as `select`, or the expression is not a number.
    """
    with _one_kind_of_error(expression):
        found = _Evaluation(batch, expression).number(_parse(expression))
        found = found.cast(pa.float64())
    if isinstance(found, pa.Scalar):
        value = found.as_py()
        return np.full(batch.num_rows, np.nan if value is None else value, np.float64)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.float64)


@contextmanager
def _one_kind_of_error(expression: str) -> Iterator[None]:
    """Raise what evaluation meets as a RecipeError."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RecipeError(f"selection {expression!r}: {error}") from None
    except RecursionError:
        raise _too_deep(expression) from None


def _too_deep(expression: str) -> RecipeError:
    return RecipeError(
        f"selection {expression[:80]!r}…: nested too deeply; write it with fewer terms"
    )


def _parse(expression: str) -> ast.expr:
    if not expression.strip():
        raise RecipeError("a selection is empty: write True to select everything")
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RecipeError(f"selection {expression!r}: not an expression: {why}") from None
    except (RecursionError, MemoryError):
        raise _too_deep(expression) from None


def _kind(value: Any) -> str:
    """Return what a value can be compared with: numbers with numbers, strings with strings…"""
    if pa.types.is_boolean(value.type):
        return "true/false"
    if pa.types.is_integer(value.type) or pa.types.is_floating(value.type):
        return "number"
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
        return "string"
    return str(value.type)


class _Evaluation:
    """Evaluates the nodes of one expression over one batch, to Arrow arrays and scalars."""

    def __init__(
        self,
        batch: pa.RecordBatch | pa.Table,
        expression: str,
        sources: Sequence[str] | None = None,
    ) -> None:
        self._batch = batch
        self._expression = expression
        names = batch.schema.names
        derived = sources is not None and "source_id" in names and SOURCE not in names
        self._sources = sources if derived else None

    def truth(self, node: ast.expr) -> Any:
        """Evaluate a node that must be true or false; the result has no nulls."""
        match node:
            case ast.BoolOp(op, values):
                result = self.truth(values[0])
                for value in values[1:]:
                    result = _LOGIC[type(op)](result, self.truth(value))
                return result
            case ast.UnaryOp(ast.Not(), operand):
                return pc.invert(self.truth(operand))
            case ast.Compare(left, operators, rights):
                result = pa.scalar(True)
                for operator, right in zip(operators, rights, strict=True):
                    result = pc.and_(result, self._compare(node, left, operator, right))
                    left = right  # a < b < c means a < b and b < c
                return result
            case _:
                result = self._value(node)
                if _kind(result) != "true/false":
                    raise self._error(node, f"is a {_kind(result)}, not true or false: compare it")
                return pc.fill_null(result, False)

    def _compare(
        self, whole: ast.expr, left: ast.expr, operator: ast.cmpop, right: ast.expr
    ) -> Any:
        if isinstance(operator, ast.In | ast.NotIn):
            return self._member(left, right, negate=isinstance(operator, ast.NotIn))
        if type(operator) not in _COMPARE:
            raise self._error(whole, f"uses what a selection cannot: it may use {_ALLOWED}")
        if isinstance(operator, ast.Eq | ast.NotEq):
            self._check_source(left, right)
            self._check_source(right, left)
        one, other = self._value(left), self._value(right)
        if _kind(one) != _kind(other):
            raise self._error(whole, f"compares a {_kind(one)} with a {_kind(other)}")
        return pc.fill_null(_COMPARE[type(operator)](one, other), False)

    def _member(self, left: ast.expr, right: ast.expr, *, negate: bool) -> Any:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._error(right, "is not a list: write in ['a', 'b']")
        value = self._value(left)
        result = pa.scalar(False)
        for item in right.elts:
            if not isinstance(item, ast.Constant | ast.UnaryOp):
                raise self._error(item, "is not a literal: a list may hold numbers or strings")
            self._check_source(left, item)
            literal = self._value(item)
            if _kind(literal) != _kind(value):
                raise self._error(item, f"is a {_kind(literal)} in a test of a {_kind(value)}")
            result = pc.or_(result, pc.fill_null(pc.equal(value, literal), False))
        return pc.and_(pc.is_valid(value), pc.invert(result)) if negate else result

    def _value(self, node: ast.expr) -> Any:
        """Evaluate a node to a column or a scalar."""
        match node:
            case ast.Name(name):
                return self._column(name)
            case ast.Constant(bool() | int() | float() | str() as value):
                if value in {math.inf, -math.inf}:
                    raise self._error(node, "is infinite in 64 bits")
                try:
                    return pa.scalar(value)
                except (OverflowError, pa.ArrowInvalid):
                    raise self._error(node, "does not fit into 64 bits") from None
                except UnicodeEncodeError:
                    raise self._error(node, "is not Unicode text: it has a surrogate") from None
            case ast.UnaryOp(ast.USub(), operand):
                return self._checked(node, pc.negate_checked, self.number(operand))
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                one, other = self.number(left), self.number(right)
                if isinstance(op, ast.Div):  # true division, as in Python; x / 0 is inf or NaN
                    one, other = one.cast(pa.float64()), other.cast(pa.float64())
                return self._checked(node, _ARITHMETIC[type(op)], one, other)
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(ast.Not()):
                return self.truth(node)
            case _:
                raise self._error(node, f"uses what a selection cannot: it may use {_ALLOWED}")

    def _checked(self, node: ast.expr, compute: Callable[..., Any], *values: Any) -> Any:
        """Compute, and name the piece of the expression where whole numbers leave 64 bits."""
        try:
            return compute(*values)
        except pa.ArrowInvalid as error:
            if str(error) != "overflow":
                raise
            raise self._error(
                node, "gives a whole number beyond 64 bits; a number written 2.0 makes it a float"
            ) from None

    def number(self, node: ast.expr) -> Any:
        """Evaluate a node that must be a number, as int64 or float64 so that it cannot wrap."""
        value = self._value(node)
        if _kind(value) != "number":
            raise self._error(node, f"is a {_kind(value)}, not a number")
        return value.cast(pa.int64() if pa.types.is_integer(value.type) else pa.float64())

    def _column(self, name: str) -> Any:
        names = tuple(self._batch.schema.names)
        if name == SOURCE and self._sources is not None:
            return pc.take(pa.array(self._sources, pa.string()), self._batch.column("source_id"))
        if name not in names:
            raise RecipeError(
                f"selection {self._expression!r}: unknown column {name!r}"
                f"{did_you_mean(name, names, 'columns')}"
            )
        column = self._batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column

    def _check_source(self, one: ast.expr, other: ast.expr) -> None:
        """Refuse to compare `source` with a string that names none of the dataset's sources."""
        match one, other:
            case ast.Name("source"), ast.Constant(str() as name):
                if self._sources is not None and name not in self._sources:
                    known = did_you_mean(name, tuple(self._sources), "sources")
                    raise self._error(other, f"is no source of this dataset{known}")

    def _error(self, node: ast.expr, why: str) -> RecipeError:
        piece = ast.get_source_segment(self._expression.strip(), node) or ast.unparse(node)
        return RecipeError(f"selection {self._expression!r}: {piece!r} {why}")
