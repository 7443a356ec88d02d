"""A brute-force oracle in plain Python, which shares no code with the kernels."""

import random
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

# Starts of the names of characters that are words by themselves.
UNSPACED = (
    *("CJK", "IDEOGRAPHIC", "VERTICAL KANA", "VERTICAL IDEOGRAPHIC", "HANGZHOU", "MASU MARK"),
    *("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "COMBINING KATAKANA", "HENTAIGANA"),
)
# … and of those whose marks end a word.
SYLLABIC = ("THAI ", "LAO ", "TIBETAN", "MYANMAR", "KHMER", "TAI ", "NEW TAI LUE")


def flat_(texts: Sequence[str | bytes]) -> tuple[Any, Any]:
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    data = np.frombuffer(b"".join(raw), dtype=np.uint8)
    return data, np.cumsum([0, *map(len, raw)]).astype(np.int64)


class Oracle:
    @staticmethod
    def ends_word(char: str) -> bool:
        mark = unicodedata.category(char)[0] == "M"
        return mark and unicodedata.name(char, "").startswith(SYLLABIC)

    @classmethod
    def words(cls, text: str) -> list[str]:
        out, word, last = [], "", " "
        for char in text + " ":
            folded = next((f for f in (char.casefold(), char.lower()) if len(f) == 1), char)
            single = unicodedata.name(char, "").startswith(UNSPACED)
            part = unicodedata.category(char)[0] in "LMN"
            closed = cls.ends_word(last) and not cls.ends_word(char)
            last = char
            if word and (closed or single or not part):
                out.append(word)
                word = ""
            if single and part:
                out.append(folded)
            elif part:
                word += folded
        return out

    @classmethod
    def shingles(cls, text: str, n: int) -> list[tuple[str, ...]]:
        words = cls.words(text)
        if 0 < len(words) < n:
            return [tuple(words)]
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    @classmethod
    @cache
    def shingle_set(cls, text: str, n: int) -> frozenset[tuple[str, ...]]:
        return frozenset(cls.shingles(text, n))

    @classmethod
    def jaccard(cls, a: str, b: str, n: int) -> float:
        x, y = cls.shingle_set(a, n), cls.shingle_set(b, n)
        return len(x & y) / len(x | y) if x and y else 0.0

    @staticmethod
    def pattern(values: Sequence[Any]) -> list[int]:
        """Where each value first occurs: equal patterns mean the same equalities."""
        first: dict[Any, int] = {}
        return [first.setdefault(value, place) for place, value in enumerate(values)]

    @staticmethod
    def components(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
        label = list(range(n))
        for _ in range(n):
            for a, b in edges:
                label[a] = label[b] = min(label[a], label[b])
        return label


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    return Oracle


@pytest.fixture(scope="session")
def flat() -> Any:
    return flat_


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Texts of 30–300 made-up words, edited copies of some, short and empty ones."""
    rng = random.Random(7)
    vocabulary = [f"w{i}" for i in range(3000)]
    texts = [
        "",
        "   ",
        "one",
        "One!",
        "a b",
        "漢字かな交じり文の短い例です",
        *["same text here"] * 3,
    ]
    for _ in range(60):
        words = rng.choices(vocabulary, k=rng.randrange(30, 300))
        texts.append(" ".join(words))
        for _ in range(rng.randrange(4)):
            copy = list(words)
            for _ in range(rng.randrange(8)):
                copy[rng.randrange(len(copy))] = rng.choice(vocabulary)
            texts.append(" ".join(copy[rng.randrange(3) :]))
    rng.shuffle(texts)
    return texts
