import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality import ngram
from pipelines.quality.ngram import COSTS, ORDER, PRUNED_FROM

TEXTS = st.lists(st.text(alphabet="abc\né", max_size=30).map(str.encode), max_size=8)


def flat(texts):
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return np.frombuffer(bytearray().join(texts), np.uint8), offsets


class Reference:
    """The formula of the docstring with dictionaries, one probability at a time."""

    def __init__(self, texts):
        self.counts = collections.Counter(
            text[at : at + n]
            for text in texts
            for n in range(1, ORDER + 1)
            for at in range(len(text) - n + 1)
        )
        self.after = collections.defaultdict(dict)
        for gram, count in self.counts.items():
            self.after[gram[:-1]][gram[-1:]] = count

    def p(self, context, byte):
        if len(context) >= ORDER:
            context = context[-(ORDER - 1) :]
        seen = self.after.get(context, {})
        lower = 1 / 256 if not context else self.p(context[1:], byte)
        if not seen:
            return lower
        least = 2 if len(context) + 1 >= PRUNED_FROM else 1
        kinds, total = len(seen), sum(seen.values())
        single = sum(count < least for count in seen.values())
        count = seen.get(byte, 0)
        count = count if count >= least else 0
        return (count + (kinds + single) * lower) / (total + kinds)

    def bits(self, text):
        return -sum(math.log2(self.p(text[:at], text[at : at + 1])) for at in range(len(text)))


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_code_lengths_are_the_formulas_but_for_rounding(train, texts):
    model = ngram.train(*flat(train))
    reference = Reference(train)
    found = ngram.bits(model, *flat(texts)) / 65536
    for text, bits in zip(texts, found, strict=True):
        # A cost and up to ORDER leaving costs are rounded for each byte, to half a step each.
        wrong = sum(
            0.02 + 0.06 * -math.log2(reference.p(text[:k], text[k : k + 1]))
            for k in range(len(text))
        )
        assert bits == pytest.approx(reference.bits(text), abs=wrong + 1e-9)


@given(TEXTS.filter(any))
def test_probabilities_of_a_context_add_up_to_one(train):
    reference = Reference(train)
    for context in list(reference.after)[:20]:
        total = sum(reference.p(context, bytes([byte])) for byte in range(256))
        assert total == pytest.approx(1)


def test_order_of_documents_does_not_matter_and_their_borders_do():
    one, other = (ngram.train(*flat(texts)) for texts in ([b"abcabc", b"xyz"], [b"xyz", b"abcabc"]))
    assert one.slots.tobytes() == other.slots.tobytes()
    joined = ngram.train(*flat([b"abcabcxyz"]))
    assert joined.slots.tobytes() != one.slots.tobytes()
    assert (one.documents, one.text_bytes) == (2, 9)


def test_what_was_read_costs_less_than_what_was_not():
    text = b"the quick brown fox jumps over the lazy dog. " * 30
    model = ngram.train(*flat([text]))
    known, noise, empty = ngram.bpb(model, *flat([text[:200], bytes(range(256)), b""]))
    assert known < 0.5
    assert noise > 8
    assert empty == 0


def test_a_slice_of_a_batch_is_scored_like_the_whole():
    texts = [b"one document", b"", b"and another one", b"\xff\x00"]
    data, offsets = flat(texts)
    model = ngram.train(data, offsets)
    whole = ngram.bits(model, data, offsets)
    assert ngram.bits(model, data, offsets[1:4]).tolist() == whole[1:3].tolist()
    again = ngram.train(data, offsets[1:4])
    assert again.slots.tobytes() == ngram.train(*flat(texts[1:3])).slots.tobytes()


def test_costs_are_rounded_to_the_nearest():
    codes = ngram._codes(np.array([1.0, 0.5, 2.0**-30]))
    assert codes.tolist()[0] == 0
    assert abs(COSTS[codes[1]] / 65536 - 1) < 0.02
    assert codes[2] == 255
