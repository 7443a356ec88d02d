from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.shingles import shingle_sets, shingles

TEXTS = st.lists(st.text("ab 世\n", max_size=40), max_size=5)


def split(values, offsets):
    return [values[a:b].tolist() for a, b in pairwise(offsets)]


@given(TEXTS, st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_shingles_are_equal_where_the_oracles_are(flat, oracle, texts, ngram):
    found = split(*shingles(*flat(texts), ngram, "word"))
    expected = [oracle.shingles(text, ngram) for text in texts]
    assert [len(one) for one in found] == [len(one) for one in expected]
    assert oracle.pattern([*chain(*found)]) == oracle.pattern([*chain(*expected)])


@given(TEXTS, st.integers(1, 4), st.sampled_from(["word", "char", "space"]))
@settings(max_examples=200, deadline=None)
def test_sets_are_the_sorted_distinct_shingles(flat, texts, ngram, unit):
    sets = split(*shingle_sets(*flat(texts), ngram, unit))
    assert sets == [sorted(set(one)) for one in split(*shingles(*flat(texts), ngram, unit))]


def test_sets_of_a_long_and_a_repetitive_document(flat):
    texts = [" ".join(map(str, range(5000))), "a b " * 3000]
    long, repetitive = split(*shingle_sets(*flat(texts), 5, "word"))
    assert (len(long), len(repetitive)) == (4996, 2)
    assert long == sorted(long)


@pytest.mark.parametrize("unit", ["word", "char", "space"])
def test_a_document_does_not_depend_on_its_batch(flat, corpus, unit):
    together = split(*shingles(*flat(corpus), 5, unit))
    assert together == [split(*shingles(*flat([text]), 5, unit))[0] for text in corpus]


def test_character_shingles_follow_characters(flat):
    one, other, apart = split(*shingle_sets(*flat(["abcd", "ABCD!", "ab cd"]), 3, "char"))
    assert (len(one), len(apart)) == (2, 3)
    assert one == other
    assert not set(one) & set(apart)


def test_offsets_may_start_inside_the_buffer(flat):
    data, offsets = flat(["skip me", "one two three"])
    hashes, bounds = shingles(data, np.ascontiguousarray(offsets[1:]), 2, "word")
    assert bounds.tolist() == [0, 2]
    assert hashes.tolist() == shingles(*flat(["one two three"]), 2, "word")[0].tolist()
