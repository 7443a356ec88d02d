"""Against a reference that shares nothing with the kernel but the definitions."""

import random
import re
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import gopher, repetition
from shards.text import flat


def duplicates(units: list[str]) -> list[int]:
    later = [unit for place, unit in enumerate(units) if unit in units[:place]]
    return [sum(map(len, units)), len(later), sum(map(len, later))]


def top(words: list[str], n: int) -> int:
    free: dict[tuple[str, ...], int] = {}
    times: Counter[tuple[str, ...]] = Counter()
    for at in range(len(words) - n + 1):
        ngram = tuple(words[at : at + n])
        if at >= free.get(ngram, 0):
            times[ngram] += 1
            free[ngram] = at + n
    most, chars = max(((k, sum(map(len, g))) for g, k in times.items()), default=(0, 0))
    return most * chars if most > 1 else 0


def repeated(words: list[str], n: int) -> int:
    seen = set()
    marked = set()
    for at in range(len(words) - n + 1):
        ngram = tuple(words[at : at + n])
        if ngram in seen:
            marked.update(range(at, at + n))
        seen.add(ngram)
    return sum(len(words[at]) for at in marked)


def reference(text: str) -> list[int]:
    words = text.split()
    rows = [row.strip() for row in text.split("\n")]
    lines = [row for row in rows if row]
    blocks = re.split(r"\n(?:[^\S\n]*\n)+", text)
    paragraphs = [block.strip() for block in blocks if block.strip()]
    return [
        *duplicates(lines),
        len(paragraphs),
        *duplicates(paragraphs),
        *(top(words, n) for n in range(2, 5)),
        *(repeated(words, n) for n in range(5, 11)),
    ]


def counted(texts: list[str]) -> list[list[int]]:
    batch = flat(pa.array(texts, pa.large_string()))
    return repetition.count(*batch, gopher.count(*batch)).tolist()


PIECES = st.sampled_from(
    [
        "a ",
        "b ",
        "a b ",
        "bb ",
        "é ",
        "\n",
        "\n\n",
        " \n \n",
        "\u3000",
        "世界 ",
        "x\ny\n",
        "\x85",
        "\r\n",
    ]
)
TEXTS = st.lists(
    PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=60
)

MULTILINGUAL = [
    "Der Text steht hier.\n\nDer Text steht hier.\nDer Text steht hier.\n\nDer Text steht hier.",
    "Это предложение. Это предложение. Это предложение.\r\n\r\nВторая строка\r\n\r\n" * 3,
    "これは日本語の文章です。\u3000これは日本語の文章です。\n" * 4,
    "نص عربي وعلامات نص عربي وعلامات نص عربي وعلامات",
    "क्ष त्र ज्ञ " * 12,
    "😀 😀😀 😀 😀😀 𝔞 " * 5,
]


@given(st.lists(TEXTS.map("".join), min_size=1, max_size=4))
@example(MULTILINGUAL)
@example(["Wörter, die be… stehen\n" * 400, "x" * 4095 + ". x", "é" * 4099])
@example(["", " ", "\n\n", "a", "a a", "a a a", "a a a a", "x" * 300, "a " * 40, "a\n" * 9])
def test_every_count_is_the_references(texts):
    assert counted(texts) == [reference(text) for text in texts]


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 8, 60])
def test_long_repetitive_texts(vocabulary):
    draw = random.Random(vocabulary)
    words = [f"w{number}" for number in range(vocabulary)]
    texts = [
        "".join(draw.choice(words) + draw.choice("    \n") for _ in range(size))
        for size in (11, 100, 700)
    ]
    phrase = " ".join(draw.choices(words, k=40))
    texts.append("\n\n".join([phrase, texts[1], phrase, texts[0], phrase[5:]]))
    assert counted(texts) == [reference(text) for text in texts]


def test_examples_by_hand():
    text = "one two\n\none two\nthree\n\none two"
    (row,) = counted([text])
    assert row[repetition.LINE_CHARS] == 7 + 7 + 5 + 7
    assert row[repetition.DUPLICATE_LINES] == 2
    assert row[repetition.DUPLICATE_LINE_CHARS] == 14
    assert (row[repetition.PARAGRAPHS], row[repetition.DUPLICATE_PARAGRAPHS]) == (3, 1)
    assert row[repetition.PARAGRAPH_CHARS] == 7 + 13 + 7
    assert row[repetition.NGRAMS] == 3 * 6
    assert row[repetition.NGRAMS + 1] == 0
    assert counted(["a b c d e f a b c d e"])[0][repetition.NGRAMS + 3 :] == [5, 0, 0, 0, 0, 0]


@given(TEXTS.map("".join))
def test_shares_are_shares_and_longer_ngrams_repeat_less(text):
    ((*_, top2, top3, top4, d5, d6, d7, d8, d9, d10),) = counted([text])
    assert max(top2, top3, top4) <= sum(map(len, text.split()))
    assert sum(map(len, text.split())) >= d5 >= d6 >= d7 >= d8 >= d9 >= d10
