"""Against a reference that shares nothing with the kernel but the definitions."""

import re
import sys
import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import gopher
from pipelines.quality.characters import ALPHABETIC, SPACE, classes
from shards.text import flat

STOP = {"the", "be", "to", "of", "and", "that", "have", "with"}
CLASSES = classes()


def is_letter(character: str) -> bool:
    """`str.isalpha`, less what Unicode added after the version that is pinned."""
    point = ord(character)
    return character.isalpha() and point < len(CLASSES) and CLASSES[point] == ALPHABETIC


def ascii_lower(word: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in word)


def core(word: str) -> str:
    letters = [at for at, character in enumerate(word) if is_letter(character)]
    return word[letters[0] : letters[-1] + 1] if letters else ""


def reference(text: str) -> list[int]:
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return [
        len(text),
        len(words),
        sum(map(len, words)),
        text.count("#"),
        len(re.findall(r"\.\.\.|…", text)),
        len(lines),
        sum(line.startswith(("•", "-", "*")) for line in lines),
        sum(line.endswith(("...", "…")) for line in lines),
        sum(any(map(is_letter, word)) for word in words),
        len(STOP & {ascii_lower(core(word)) for word in words}),
    ]


def counted(texts: list[str]) -> list[list[int]]:
    return gopher.count(*flat(pa.array(texts, pa.large_string()))).tolist()


SPECIAL = [*"#.…•-*\n \t\r", "...", "The", "the,", "(to)", "WITH", "to-be", "é", "\u3000", "\x85"]
PIECES = st.sampled_from([*SPECIAL, *STOP, "the\u0301", "世界", "𝔞", "😀", "١", "\x1c", "\u200b"])
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=4))

MULTILINGUAL = [
    "Der Text, der hier steht, hat Wörter… und Zeilen.\n\n- Punkt eins\n- Punkt zwei...\n",
    "Это предложение на русском языке, и оно длиннее.\r\nВторая строка...\r\n",
    "これは日本語の文章です。空白は少ない。\u3000全角の空白もある。",
    "هذا نص عربي، وفيه أرقام ١٢٣ وعلامات؟",
    "यह हिन्दी का वाक्य है। क्ष त्र ज्ञ",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "# Heading ## with #hashes\n* star\n• bullet\n‣ none\n",
    "To be, or not to be: that is the question. We have it with us, and of THE best.",
    "....... ... .. . ...\n..\u00a0.\n. . .\n",
]


LONG = ["Wörter, die be… stehen:\n" * 500, "x" * 4095 + ". the", "x" * 4096 + "\n", "é" * 4099]
"""Longer than the pieces that the kernels look at."""


@given(st.lists(TEXTS.map("".join), min_size=1, max_size=5))
@example(MULTILINGUAL)
@example(LONG)
@example(["", " ", "\n\n", "a", "...", "x" * 300])
def test_every_count_is_the_references(texts):
    assert counted(texts) == [reference(text) for text in texts]


def test_examples_by_hand():
    (row,) = counted(["The cat… sat # on\n\n- (the) mat...\n* 42 The,"])
    names = ("CHARS", "WORDS", "HASHES", "ELLIPSES", "LINES", "BULLET_LINES", "ELLIPSIS_LINES")
    found = [row[getattr(gopher, name)] for name in names]
    assert found == [43, 11, 1, 2, 3, 2, 1]
    assert row[gopher.ALPHABETIC_WORDS] == 7
    assert row[gopher.STOP_WORDS] == 1


def test_a_document_does_not_see_its_neighbours():
    texts = ["ends in ..", ". and\u3000", "the", "re"]
    assert counted(texts) == [counted([text])[0] for text in texts]


def test_classes_agree_with_python():
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        kind = CLASSES[point] if point < len(CLASSES) else 0
        assert (kind == SPACE) == character.isspace(), hex(point)
        if unicodedata.unidata_version == "14.0.0" or kind == ALPHABETIC:
            assert (kind == ALPHABETIC) == character.isalpha(), hex(point)


def test_share_of_nothing_is_nothing():
    shares = gopher.share(np.array([0, 1, 0]), np.array([0, 10, 3]))
    assert shares.dtype == np.float32
    assert shares.tolist() == [0.0, np.float32(0.1), 0.0]
