import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import RecipeError
from shards.select import arithmetic, columns, select

ROWS = pa.table(
    {
        "n": pa.array([0, 1, 2, None], pa.uint16()),
        "f": pa.array([0.5, -1.0, float("nan"), None], pa.float32()),
        "s": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "t": pa.array(["a", "b", "c", ""], pa.large_string()),
        "flag": pa.array([True, False, None, True]),
    }
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("n < 1", "1000"),
        ("not n < 1", "0111"),  # a null compares false, so its negation is true
        ("n != 1", "1010"),
        ("0 < n <= 2", "0110"),
        ("n - 1 < 0", "1000"),  # unsigned columns do not wrap
        ("n / 2 == 0.5", "0100"),  # true division
        ("1 / n > 100", "1000"),  # division by zero is infinite
        ("n * 9.2e18 * 9.2e18 > 0", "0110"),  # floats do not wrap
        ("n * 4611686018427387903 > 0", "0110"),
        ("-f > 0", "0100"),
        ("f < 100", "1100"),  # NaN and null alike
        ("s == 'a'", "1001"),
        ("s in ['a', 'z']", "1001"),
        ("s not in ['a', 'z']", "0100"),  # a null is not known to be outside
        ("n in (1, 2.0)", "0110"),
        ("n in []", "0000"),
        ("s == t", "1100"),
        ("flag", "1001"),
        ("not flag", "0110"),
        ("flag and n == 0 or t == 'c'", "1010"),
        ("flag == (n == 0)", "1100"),
        ("True", "1111"),
        ("1 < 2 < 3 and not False", "1111"),
        ("  n == 1\n", "0100"),
    ],
)
def test_selects(expression, expected):
    mask = select(ROWS, expression)
    assert mask.dtype == np.bool_
    assert "".join(str(int(value)) for value in mask) == expected
    batch = ROWS.combine_chunks().to_batches()[0]
    np.testing.assert_array_equal(select(batch, expression), mask)
    assert len(select(batch.slice(0, 0), expression)) == 0


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sz == 'a'", "unknown column 'sz'; did you mean 's'"),
        ("zzz > 1", "unknown column 'zzz'; known columns: n, f, s, t, flag"),
        ("n", "'n' is a number, not true or false"),
        ("flag and n", "'n' is a number, not true or false"),
        ("n < 'a'", r"""\"n < 'a'\" compares a number with a string"""),
        ("s in ['a', 1]", "'1' is a number in a test of a string"),
        ("n in s", "'s' is not a list"),
        ("n in [f]", "'f' is not a literal"),
        ("-s == 'a'", "'s' is a string, not a number"),
        ("n is None", "'n is None' uses what a selection cannot"),
        ("n ** 2 > 1", r"'n \*\* 2' uses what a selection cannot"),
        ("__import__('os').system('x')", "uses what a selection cannot"),
        ("flag if flag else flag", "uses what a selection cannot"),
        ("n == b'x'", "uses what a selection cannot"),
        ("n < 99999999999999999999", "does not fit into 64 bits"),
        ("n < 1e400", "'1e400' is infinite in 64 bits"),
        ("n <", "not an expression"),
        ("", "a selection is empty: write True"),
        (" \n", "a selection is empty"),
        ("n * 9223372036854775807 > 0", r"'n \* 9223372036854775807' gives .* beyond 64 bits"),
        ("flag and 0 < 9223372036854775807 + n", "beyond 64 bits"),
        ("n - 1 - 9223372036854775807 - 1 < 0", "beyond 64 bits"),
        ("-(-9223372036854775807 - 1) < n", "beyond 64 bits"),
        (r"t == '\ud800'", "is not Unicode text"),
        ("n" + " + n" * 700 + " > 0", "nested too deeply"),
        ("n < 1\0", "not an expression"),
        ("(" * 500 + "n" + ")" * 500, "not an expression|nested too deeply"),
    ],
)
def test_refuses_naming_the_piece(expression, message):
    with pytest.raises(RecipeError, match=message):
        select(ROWS, expression)


def test_names_the_columns_it_reads():
    assert columns("a < 1 and (b + c > 2 or d in ['e'])") == {"a", "b", "c", "d"}


numbers = st.recursive(
    st.sampled_from(["a", "b", "1", "2.5", "0"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda x: f"(-{x})"),
    ),
    max_leaves=4,
)
comparisons = st.one_of(
    st.tuples(numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers).map(" ".join),
    st.tuples(numbers, st.sampled_from(["in", "not in"])).map(lambda t: f"{t[0]} {t[1]} [1, -2]"),
    st.tuples(numbers, numbers, numbers).map(" < ".join),
)
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda x: f"(not {x})"),
    ),
    max_leaves=4,
)


@given(expressions, st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=5))
def test_agrees_with_python_where_nothing_is_null(expression, rows):
    table = pa.table(
        {
            "a": pa.array([a for a, _ in rows], pa.int8()),
            "b": pa.array([b / 2 for _, b in rows], pa.float64()),
        }
    )
    code = compile(expression, "selection", "eval")
    expected = [eval(code, {}, {"a": a, "b": b / 2}) for a, b in rows]
    assert select(table, expression).tolist() == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("n / 2 - 1", [-1, -0.5, 0, np.nan]),  # unsigned columns do not wrap
        ("f * n", [0, -1, np.nan, np.nan]),
        ("3", [3, 3, 3, 3]),
    ],
)
def test_arithmetic_gives_a_number_for_each_row(expression, expected):
    for table in (ROWS, ROWS.to_batches()[0]):
        found = arithmetic(table, expression)
        assert found.dtype == np.float64
        assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize(
    "expression", ["n < 1", "s", "n +", "t + 1", "n * 9223372036854775807", "n" + " + n" * 700]
)
def test_what_is_no_number_is_refused(expression):
    with pytest.raises(RecipeError, match="selection "):
        arithmetic(ROWS, expression)


TOKENS = pa.record_batch({"source_id": pa.array([1, 0, 2, 1], pa.uint16()), "n": [1, 2, 3, 4]})
NAMES = ["books", "web", "wiki"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("source == 'web'", "1001"),
        ("'web' != source", "0110"),
        ("source in ['web', 'wiki'] and n > 1", "0011"),
        ("source not in ('books',)", "1011"),
        ("source > 'books'", "1011"),
        ("source > 'a'", "1111"),  # an order needs no name of a source
        ("source_id == 1", "1001"),
    ],
)
def test_source_is_the_name_that_source_id_stands_for(expression, expected):
    assert "".join(str(int(row)) for row in select(TOKENS, expression, NAMES)) == expected


@pytest.mark.parametrize("form", ["source == {}", "{} == source", "n > 9 and source not in [{}]"])
def test_a_source_that_the_dataset_does_not_have_is_an_error(form):
    with pytest.raises(
        RecipeError, match="'wki'\" is no source of this dataset; did you mean 'wiki'"
    ):
        select(TOKENS, form.format("'wki'"), NAMES)


def test_a_source_column_goes_before_the_names():
    batch = TOKENS.append_column("source", pa.array(["x", "y", "x", "z"]))
    assert select(batch, "source == 'x'", NAMES).tolist() == [True, False, True, False]
    with pytest.raises(RecipeError, match="unknown column 'source'; did you mean 'source_id'"):
        select(TOKENS, "source == 'x'")
