"""Against a reference that shares nothing with the kernel but the definitions."""

import math
import re
import sys
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import gopher, web
from pipelines.quality.characters import IS_DIGIT, IS_LETTER, IS_SPACE, IS_UPPER, traits
from shards.text import flat

TRAITS = traits()


def known(character: str, bit: int) -> bool:
    """Tell whether a character's trait is one of the pinned version of Unicode."""
    return ord(character) < len(TRAITS) and bool(TRAITS[ord(character)] & bit)


def is_letter(character: str) -> bool:
    return character.isalpha() and known(character, IS_LETTER)


def is_upper(character: str) -> bool:
    return unicodedata.category(character) == "Lu" and known(character, IS_UPPER)


def is_digit(character: str) -> bool:
    return character.isdecimal() and known(character, IS_DIGIT)


def ascii_lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def term(word: str) -> str:
    inner = [at for at, letter in enumerate(word) if is_letter(letter) or is_digit(letter)]
    return ascii_lower(word[inner[0] : inner[-1] + 1]) if inner else ""


def number(word: str) -> bool:
    digits = "".join("0" if is_digit(letter) else letter for letter in word)
    return bool(re.fullmatch(r"0[0.,]*[KkMmBb+]?", digits))


def kinds(line: str) -> list[bool]:
    words = line.split()
    letters = [letter for letter in line if is_letter(letter)]
    uppers = [letter for letter in line if is_upper(letter)]
    lower = ascii_lower(line)
    counter = len(words) == 2 and number(words[0]) and all(map(is_letter, words[1]))
    phrases = (
        lower.startswith(("sign in", "sign-in"))
        or re.search(r"(^|\s)read more[.…>»→\s]*$", lower)
        or re.search(r"(^|\s)items in cart", lower)
    )
    return [
        len(uppers) > len(letters) - len(uppers),
        not letters and any(map(is_digit, line)),
        counter,
        len(words) == 1,
        len(words) <= 10 and bool(phrases),
    ]


def reference(text: str) -> list[int]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    found = [kinds(line) for line in lines]
    words = text.split()
    terms = Counter(filter(None, map(term, words)))
    n = sum(terms.values())

    def log(count: int) -> int:
        return round(math.log(count) * web.LOG_UNIT)

    return [
        *(sum(line[kind] for line in found) for kind in range(5)),
        sum(len(line.split()) for line, own in zip(lines, found, strict=True) if any(own)),
        sum(
            any(map(is_letter, word)) and all(is_upper(x) for x in word if is_letter(x))
            for word in words
        ),
        sum(map(is_upper, text)),
        sum(map(is_digit, text)),
        n,
        len(terms),
        log(max(n, 1)),
        sum(count * log(count) for count in terms.values()),
    ]


def counted(texts: list[str]) -> list[list[int]]:
    batch = flat(pa.array(texts, pa.large_string()))
    words = gopher.count(*batch)[:, gopher.WORDS].copy()
    return web.count(*batch, words).tolist()


PIECES = st.sampled_from([
    "\n", " ", " ", "\u3000", "a", "A", "word", "WORD", "Word,", "3", "1,204", "2.5K", "10+", "٣",
    "likes", "Sign in", "sign-in", "Read more", "read more…", "items in cart", "Items", ".", "...",
    "→", "»", "É", "é", "ǅ", "日本", "\x85", "-", "'", "x" * 9, "K", "ſ", "\r\n",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=3))

EDGES = [
    "", " ", "\n", "3 likes", "3 likes!", "3K likes", "K3 likes", "3KK likes", "read more about it",
    "Read More ...", "reads more", "a b c d e f g h i read more", "a b c d e f g h i j read more",
    "sign in", "please sign in", "2 items in cart", "2 xitems in cart", "read more read more",
    "IBM a", "IBM abc", "IBM xyzw", "the The THE (the) 'the'", "... --", "1 2 3", "12/05",
    "read more\nnot", "read moreover", "ΑΒΓ", "١٢٣", "A1 B2", "3. likes", ",3 likes",
]  # fmt: skip


@given(st.lists(TEXTS.map("".join), min_size=1, max_size=4))
@example(EDGES)
def test_every_count_is_the_references(texts):
    assert counted(texts) == [reference(text) for text in texts]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("TERMS AND CONDITIONS apply", web.UPPERCASE_LINES),
        ("- 12 -", web.NUMERIC_LINES),
        ("1.2K followers", web.COUNTER_LINES),
        ("Home", web.ONE_WORD_LINES),
        ("Sign in to your account", web.NAVIGATION_LINES),
        ("The river is long. Read more...", web.NAVIGATION_LINES),
        ("0 items in cart", web.NAVIGATION_LINES),
        ("A line of prose.", None),
    ],
)
def test_the_papers_lines(line, kind):
    found = counted([f"{line}\nAnd a line of prose after it."])[0]
    assert [k for k in range(5) if found[k]] == ([] if kind is None else [kind])
    assert found[web.CORRECTED_WORDS] == (0 if kind is None else len(line.split()))


@given(st.lists(st.sampled_from(["a", "b", "B,", "(c)", "dd", "1"]), max_size=60))
def test_entropy_is_the_formula(words):
    batch = flat(pa.array([" ".join(words)], pa.large_string()))
    found = web.entropy(web.count(*batch, np.array([len(words)])))[0]
    counts = Counter(map(term, words)).values()
    plain = -sum(c / len(words) * math.log(c / len(words)) for c in counts)
    assert found == pytest.approx(plain, abs=1e-6)


def test_many_words_and_frequent_ones():
    texts = [" ".join(map(str, range(20_000))), "word " * 10_000, "a"]
    assert counted(texts) == [reference(text) for text in texts]


def test_traits_agree_with_python():
    """Up to the Unicode version that is pinned."""
    tests = {
        IS_SPACE: str.isspace,
        IS_LETTER: str.isalpha,
        IS_UPPER: lambda x: unicodedata.category(x) == "Lu",
        IS_DIGIT: str.isdecimal,
    }
    for bit, test in tests.items():
        wrong = [
            point
            for point in range(sys.maxunicode + 1)
            if test(chr(point)) != known(chr(point), bit)
        ]
        later = unicodedata.unidata_version > "14.0.0"
        assert all(later and not known(chr(point), bit) for point in wrong)
