import random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality.compression import (
    DICTIONARY_BYTES,
    zstd_bpb,
    zstd_dictionary,
    zstd_dictionary_bpb,
)
from shards.text import flat

PROSE = "It is a truth universally acknowledged, that a single man must be in want of a wife. " * 50
NOISE = "".join(f"{number * 2654435761 % 2**32:x}" for number in range(2000))


def measure(texts: list[str], level: int = 3) -> list[float]:
    return zstd_bpb(*flat(pa.array(texts, pa.large_string())), level).tolist()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from([1, 3, 19]))
def test_a_frame_without_what_is_not_the_texts(text, level):
    raw = text.encode()
    frame = zstandard.ZstdCompressor(
        level=level, write_content_size=False, write_checksum=False, write_dict_id=False
    ).compress(raw)
    assert measure([text], level) == [np.float32(8 * (len(frame) - 4) / len(raw))]


def test_the_level_is_the_one_given():
    assert measure([NOISE], 19) < measure([NOISE], 1)


def test_repetition_is_compressible_and_noise_is_not():
    repeated, noise = measure([PROSE, NOISE])
    assert repeated < 0.5
    assert 4 < noise < 5  # hexadecimal digits hold four bits each


def test_edges():
    empty, one, slice_ = measure(["", "a", PROSE])
    assert (empty, one) == (0.0, 8 * (2 + 3 + 1))
    array = pa.array(["skipped", PROSE, "also"], pa.large_string())[1:2]
    assert zstd_bpb(*flat(array), 3).tolist() == [pytest.approx(slice_, abs=0)]
    assert zstd_bpb(np.zeros(0, np.uint8), np.zeros(1, np.int64), 3).shape == (0,)


def samples(count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rng = random.Random(1)
    words = [f"{rng.getrandbits(40):x}" for _ in range(400)]
    texts = [" ".join(rng.choices(words, k=200)) for _ in range(count)]
    return flat(pa.array(texts, pa.large_string()))


def test_a_dictionary_helps_and_its_level_is_the_one_given():
    data, offsets = samples(60)
    dictionary = zstd_dictionary(data, offsets, 3)
    assert dictionary == zstd_dictionary(data, offsets, 3)
    assert len(dictionary) <= DICTIONARY_BYTES
    by_level = {level: zstd_dictionary_bpb(data, offsets, dictionary, level) for level in (1, 19)}
    assert (by_level[19] < by_level[1]).all()
    assert (by_level[1] < zstd_bpb(data, offsets, 1)).all()


def test_too_little_text_makes_no_dictionary():
    with pytest.raises(ValueError, match="1 documents"):
        zstd_dictionary(*samples(1), 3)
