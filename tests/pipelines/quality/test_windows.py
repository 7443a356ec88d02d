import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality.windows import COMMON, WINDOW, common_share, find_common

RNG = np.random.default_rng(0)


def flat(texts):
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return np.frombuffer(bytearray().join(texts), np.uint8), offsets


def noise(size):
    return RNG.integers(0, 256, size).astype(np.uint8).tobytes()


def test_text_of_many_documents_is_common_wherever_it_stands():
    shared = noise(4000)
    table = find_common(*flat([noise(500) + shared + noise(k * 7) for k in range(COMMON)]))
    whole, none, half, short, empty = common_share(
        table, *flat([shared, noise(4000), noise(4000) + shared, shared[: WINDOW - 1], b""])
    )
    assert (whole, none, short, empty) == (1, 0, 0, 0)
    assert 0.4 < half < 0.6


def test_documents_count_and_not_how_often_each_has_it():
    shared = noise(2000)
    texts = [shared * 3] * (COMMON - 1)
    assert common_share(find_common(*flat(texts)), *flat([shared])) == [0]
    assert common_share(find_common(*flat([*texts, shared])), *flat([shared])) == [1]


@given(st.lists(st.binary(max_size=300), max_size=12), st.integers(0, 40))
def test_shares_do_not_depend_on_the_batch(texts, repeats):
    table = find_common(*flat([text * 3 for text in texts] * repeats))
    together = common_share(table, *flat(texts))
    alone = [common_share(table, *flat([text]))[0] for text in texts]
    assert together.tolist() == alone
    if repeats >= COMMON:
        assert set(together.tolist()) <= {0.0, 1.0}
