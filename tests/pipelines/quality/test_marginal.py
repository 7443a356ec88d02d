import random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality.compression import zstd_bpb
from pipelines.quality.marginal import PIECE_BYTES, WINDOW_BYTES, marginal_bpb, windows
from shards.text import flat

LETTERS = "abcdefghijklmnopqrstuvwxyz      "


def noise(seed, size=2000):
    return "".join(random.Random(seed).choices(LETTERS, k=size))


BASE = [noise(seed).encode() for seed in range(200)]


def bits(known, *texts):
    return marginal_bpb(known, *flat(pa.array(texts, pa.large_string()))).tolist()


def test_what_the_base_holds_adds_little():
    known = windows(BASE)
    mixed = noise(3)[:1000] + noise(4)[:1000] + noise(5)[:1000]  # a part of each window
    new = noise(-1, 3000)
    held, added = bits(known, mixed, new)
    assert held < 0.8 * added
    (alone,) = zstd_bpb(*flat(pa.array([new], pa.large_string())), 3)
    assert abs(added - alone) < 0.2


def test_a_document_of_the_sample_is_not_its_own_window():
    known = windows(BASE)
    found = bits(known, *(text.decode() for text in BASE[:20]), noise(-1))
    assert min(found) > 0.9 * found[-1]


@settings(max_examples=20)
@given(st.permutations(range(8)), st.integers(0, 7))
def test_order_and_copies_change_nothing(order, copied):
    texts = [BASE[place] for place in order]
    assert windows([*texts, BASE[copied]]) == windows(BASE[:8])


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_document_has_the_same_bits_in_any_batch(texts):
    known = windows(BASE[:4])
    assert bits(known, *texts) == [bits(known, text)[0] for text in texts]


def test_windows_are_bounded_and_may_be_empty():
    one = windows([b"x" * (2 * PIECE_BYTES)])
    assert sorted(map(len, one)) == [0, PIECE_BYTES]
    assert bits(one, "", "abc")[0] == 0
    large = windows(number.to_bytes(4, "big") * (PIECE_BYTES // 4) for number in range(100))
    assert {len(half) for half in large} == {WINDOW_BYTES}
    assert marginal_bpb(one, np.zeros(0, np.uint8), np.zeros(1, np.int64)).shape == (0,)
