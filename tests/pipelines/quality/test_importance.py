"""Against words, hashes and logarithms in plain Python, which share only definitions with it."""

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import SignalsConfig, check_signals, compute_signals, importance
from shards.config import decode
from shards.errors import InputError, RecipeError
from shards.text import flat
from tests.pipelines.quality.test_web import term

ALL = (1 << 64) - 1
SEED = 0x9E3779B97F4A7C15


def step(hashed, value):
    mixed = ((hashed ^ value) * 0x9FB21C651E98DF25) & ALL
    return mixed ^ (mixed >> 32)


def word_hash(word):
    hashed = SEED
    for piece in re.findall(r"[a-z]{1,8}|[^a-z]", word):
        # A run is taken 8 letters at a time from its beginning, as this pattern finds them.
        value = (
            int.from_bytes(piece.encode(), "little")
            if piece.isascii() and piece.isalpha()
            else (ord(piece) | 1 << 63)
        )
        hashed = step(hashed, value)
    return hashed


def buckets(text):
    hashes = [word_hash(word) for word in map(term, text.split()) if word]
    pairs = [step(one, other) for one, other in pairwise(hashes)]
    return [hashed % 10_000 for hashed in hashes + pairs]


def weight(text, target, base):
    """The formula of DSIR over dictionaries."""

    def log_p(bucket, texts):
        times = Counter(bucket for own in texts for bucket in buckets(own))
        return math.log(times[bucket] / times.total() + 1e-8)

    return sum(log_p(bucket, target) - log_p(bucket, base) for bucket in buckets(text))


def counted(texts):
    return importance.count(text.encode() for text in texts)


WORD = st.sampled_from(
    ["the", "The", "the,", "whale", "internationalization", "a1b2", "été", "ÉTÉ", "--", "中文",
     "x" * 17, "don't", "(sea)", "\u3000", "\n", "٣"]
)  # fmt: skip
TEXT = st.lists(WORD | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)).map(" ".join)
LONG = "internationalization (of) " * 400 + "x" * 5000


@given(st.lists(TEXT, min_size=1, max_size=4), TEXT, TEXT)
@example([LONG], "the sea", "the land")
def test_weights_are_the_formulas(texts, target, base):
    target, base = f"the whale {target}", f"a1b2 {base}"
    times = counted([target])
    plain = np.zeros(10_000, np.int64)
    np.add.at(plain, buckets(target), 1)
    assert times.tolist() == plain.tolist()
    ratios = importance.train(times, counted([base]))
    found = importance.weights(ratios, *flat(pa.array(texts, pa.large_string())))
    assert found.dtype == np.float32
    expected = [weight(text, [target], [base]) for text in texts]
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_a_text_like_the_target_weighs_more_than_one_like_the_base():
    target, base = ["the sea and the whale"] * 3, ["buy the cheap watch"] * 3
    ratios = importance.train(counted(target), counted(base))
    texts = ["the whale and the sea", "a cheap watch", "", "the"]
    sea, watch, nothing, both = importance.weights(
        ratios, *flat(pa.array(texts, pa.large_string()))
    ).tolist()
    assert sea > 0 > watch
    assert nothing == 0
    # 2 of 9 words and pairs a text against 1 of 7.
    assert both == pytest.approx(math.log((2 / 9) / (1 / 7)), abs=1e-6)


@given(st.lists(TEXT, min_size=2, max_size=5))
def test_neither_order_nor_batch_matters(texts):
    assert counted(texts).tolist() == counted(texts[::-1]).tolist()
    ratios = importance.train(counted(["the whale"]), counted(["a1b2"]))
    whole = importance.weights(ratios, *flat(pa.array(texts, pa.large_string()))).tolist()
    alone = [
        importance.weights(ratios, *flat(pa.array([text], pa.large_string())))[0] for text in texts
    ]
    assert whole == alone


def test_a_model_is_its_bytes():
    ratios = importance.train(counted(["the whale"]), counted(["a1b2"]))
    assert importance.decode_model(importance.encode(ratios)).tolist() == ratios.tolist()
    for data in (b"", importance.encode(ratios)[:-1], importance.encode(ratios)[1:]):
        with pytest.raises(InputError, match="not a model of importance weights"):
            importance.decode_model(data)


def test_tables_that_cannot_be_used_are_refused():
    def config(table):
        return decode({"signals": {"importance": {"books": table}}}, "signals", SignalsConfig)

    for table in ({}, {"paths": ["a"], "model": "b"}, {"base_paths": ["a"]}):
        with pytest.raises(RecipeError, match=r"signals\.importance\.books: name paths"):
            check_signals(config(table))
    with pytest.raises(RecipeError, match="the model was not trained"):
        compute_signals(*flat(pa.array(["a"], pa.large_string())), config({"paths": ["a"]}))
    with pytest.raises(InputError, match="base_paths: the documents have no words"):
        importance.train(counted(["a"]), counted(["--"]))
