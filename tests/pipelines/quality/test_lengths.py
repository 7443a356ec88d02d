import numpy as np
import pytest

from pipelines.quality.lengths import LEAST, Curve, fit, pieces, z_scores


def flat(texts):
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return np.frombuffer(bytearray().join(texts), np.uint8), offsets


def first_byte(data, offsets):
    return data[offsets[:-1]].astype(np.float32)


def test_pieces_are_the_middles_of_documents_that_are_long_enough():
    texts = [b"a" * 10 + b"b" * 64 + b"c" * 10, b"d" * 63, b"e" * 150]
    found = pieces(first_byte, *flat(texts))
    assert {size: values.tolist() for size, values in found.items()} == {
        64: [ord("b"), ord("e")],
        128: [ord("e")],
    }


def test_a_curve_is_medians_and_spreads_and_ends_where_documents_do():
    values = np.arange(101, dtype=np.float32)
    few = values[: LEAST - 1]
    curve = fit([{64: values[:50], 128: few}, {64: values[50:]}])
    assert curve.sizes == (64,)
    assert curve.centre == (50,)
    assert curve.spread[0] == pytest.approx(34.13, abs=0.01)
    with pytest.raises(ValueError, match="16 documents of 64 bytes"):
        fit([{64: few}])


def test_z_is_linear_in_the_logarithm_of_the_length_and_constant_beyond():
    curve = Curve((64, 256), (4.0, 2.0), (0.5, 1.0))
    sizes = np.array([64, 256, 128, 1, 10**6, 0])
    found = z_scores(curve, sizes, np.array([5, 1, 3, 5, 1, 9], np.float32))
    assert found.tolist() == [2, -1, 0, 2, -1, 0]
