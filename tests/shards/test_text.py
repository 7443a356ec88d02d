from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.text import flat

texts = st.lists(st.text(max_size=8), max_size=12)


def unflatten(array):
    data, offsets = flat(array)
    assert data.dtype == "u1"
    assert offsets.dtype == "i8"
    assert data.flags.c_contiguous
    assert offsets.flags.c_contiguous
    return [data[start:end].tobytes().decode() for start, end in pairwise(offsets)]


@given(texts, st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 3))
def test_gives_back_every_text_of_arrays_slices_and_chunks(values, kind, skip):
    array = pa.array(values, kind)
    assert unflatten(array) == values
    assert unflatten(array[skip:]) == values[skip:]
    assert unflatten(pa.chunked_array([array, array[skip:]])) == values + values[skip:]


def test_does_not_copy_large_strings():
    array = pa.array(["one", "two"], pa.large_string())
    data, offsets = flat(array)
    assert data.ctypes.data == array.buffers()[2].address
    assert offsets.ctypes.data == array.buffers()[1].address


def test_keeps_the_text_alive_and_fits_kernel_signatures():
    data, offsets = flat(pa.array(["kept"], pa.large_string()))
    assert data[offsets[0] : offsets[1]].tobytes() == b"kept"
    assert data.flags.writeable  # numba's uint8[::1] refuses read-only arrays


def test_refuses_nulls_and_other_types():
    with pytest.raises(ValueError, match="1 nulls"):
        flat(pa.array(["a", None]))
    with pytest.raises(TypeError, match="int64"):
        flat(pa.array([1]))
