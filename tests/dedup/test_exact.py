import re
from itertools import pairwise

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.exact import content_hashes, normalise_space

# Unicode's White_Space property; Python's \s also takes U+001C–001F.
SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
TEXTS = st.lists(
    st.text(
        st.one_of(
            st.sampled_from(" \n\t\x85\xa0\u1680\u2009\u2028\u205f\u3000\u200baéＡ"),
            st.characters(codec="utf-8"),
        ),
        max_size=20,
    ),
    max_size=4,
)


def expected(text):
    return re.sub(SPACE, " ", text).strip(" ")


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_normalised_text_is_the_regular_expressions(flat, texts):
    out, bounds = normalise_space(*flat(texts))
    found = [out[a:b].tobytes().decode() for a, b in pairwise(bounds)]
    assert found == [expected(text) for text in texts]


def test_long_texts_with_white_space_at_every_place_of_a_block(flat):
    texts = []
    for place in range(140):
        for space in (" ", "  ", "\n\t ", "\x85", "\u3000", "\u2003x", "é\xa0 ", "\u200b"):
            texts.append("a" * place + space + "b" * (150 - place))
    out, bounds = normalise_space(*flat(texts))
    found = [out[a:b].tobytes().decode() for a, b in pairwise(bounds)]
    assert found == [expected(text) for text in texts]


def test_digest_is_xxh3_128_of_the_normalised_text(flat):
    hashes = content_hashes(*flat(["  a\n b ", "", "c"]))
    assert hashes.shape == (3, 16)
    assert hashes[0].tobytes() == xxhash.xxh3_128_digest(b"a b")
    assert hashes[1].tobytes() == xxhash.xxh3_128_digest(b"")


def test_white_space_is_equal_and_case_is_not(flat):
    same, spaced, cased = content_hashes(*flat(["A b", " A\u3000\n b", "a b"]))
    assert np.array_equal(same, spaced)
    assert not np.array_equal(same, cased)


def test_no_documents(flat):
    assert content_hashes(*flat([])).shape == (0, 16)
