"""Against a reference that shares nothing with the kernel but the definitions."""

import re

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import lines
from shards.text import flat

POLICY = "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
TERMINAL = (".", "!", "?", '"', "”")
PUNCTUATION = tuple(".!?'\"…”’»。！？｡؟۔।॥።։")


def reference(text: str) -> list[int]:
    rows = [row.strip() for row in text.split("\n") if row.strip()]

    def having(pattern: str) -> int:
        return sum(bool(re.search(pattern, row, re.IGNORECASE | re.ASCII)) for row in rows)

    kept, latin, brackets = c4(rows)
    return [
        sum(row.endswith(TERMINAL) for row in rows),
        sum(len(row.split()) < 3 for row in rows),
        sum(map(sentences, kept)),
        having("javascript"),
        having(POLICY),
        latin,
        brackets,
        sum(row.endswith(PUNCTUATION) for row in rows),
        sum(len(row) < 30 for row in rows),
        len(kept),
        sentences(text),
        len(re.findall("lorem ipsum", text, re.IGNORECASE | re.ASCII)),
        text.count("{") + text.count("}"),
    ]


def sentences(text: str) -> int:
    return sum(word.rstrip("\"')]”’»").endswith((".", "!", "?")) for word in text.split())


def c4(rows: list[str]) -> tuple[list[str], int, int]:
    """C4's own loop, without leaving it: the lines kept, what it looks for where it does."""
    kept, latin, brackets = [], 0, 0
    for row in rows:
        words = row.split()
        if max(map(len, words)) > 1000 or len(words) < 3:
            continue
        if not row.endswith(TERMINAL) or row.endswith("..."):
            continue
        latin += len(re.findall("lorem ipsum", row, re.IGNORECASE | re.ASCII))
        if re.search("javascript", row, re.IGNORECASE | re.ASCII):
            continue
        brackets += row.count("{")
        if not re.search(POLICY, row, re.IGNORECASE | re.ASCII):
            kept.append(row)
    return kept, latin, brackets


def counted(texts: list[str]) -> list[list[int]]:
    return lines.count(*flat(pa.array(texts, pa.large_string()))).tolist()


PIECES = st.sampled_from([
    "\n", " ", "\u3000", "a", "word ", "end.", "end.)", '."', "”", "»", "。", "…", "{", "}", "\r\n",
    *(text for text, _ in lines.PHRASES), "Java", "Script", "LOREM IPSUM", "Use Of Cookies", "use ",
    "x" * 28, "é" * 29, "ſ", "K", "\x85",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=3))

EDGES = [
    "", " ", "\n", ".", "use cookie", "javascrip", "lorem ipsum", "a" * 29, "a" * 30, "a b\n" * 3,
    "Er sagte: „Ja.“\n«Oui.»\n", "これは文です。\n本当？", "هل هذا نص؟\n", "यह वाक्य है।",
    "use\ncookies", "a b c...", "a b c. ..", "a b ...\n...", "a b c....", "a b c ..\n.", "...",
]  # fmt: skip


LONG = [
    "Lorem ipsum, we use\tour cookies.\n" * 300 + "x" * 3000 + " use cookies",
    "javascript " * 900,
    *(
        f"One two {letter * n}.\nIt is one.\n"
        for letter in ("x", "é", "ab,")
        for n in (333, 999, 1000)
    ),
    "x" * 600 + " " + "x" * 600 + " end.",
]
"""Longer than the pieces that the kernel looks at."""


@given(st.lists(TEXTS.map("".join), min_size=1, max_size=4))
@example(EDGES)
@example(LONG)
def test_every_count_is_the_references(texts):
    assert counted(texts) == [reference(text) for text in texts]


def test_examples_by_hand():
    text = (
        'He said: "This is it."  \n\nWe use cookies; Terms of Use\nJavaScript {}\nLorem ipsum? No!'
    )
    names = ("TERMINAL_LINES", "FEW_WORD_LINES", "SENTENCES", "JAVASCRIPT_LINES", "POLICY_LINES")
    more = ("LOREM_IPSUM", "CURLY_BRACKETS", "PUNCTUATED_LINES", "SHORT_LINES")
    (row,) = counted([text])
    assert [row[getattr(lines, name)] for name in names] == [2, 1, 3, 1, 1]
    assert [row[getattr(lines, name)] for name in more] == [
        1,
        0,
        2,
        4,
    ]  # the bracket is in no line that is left
    whole = ("KEPT_LINES", "ALL_SENTENCES", "ALL_LOREM_IPSUM", "ALL_CURLY_BRACKETS")
    assert [row[getattr(lines, name)] for name in whole] == [2, 3, 1, 2]


def test_page_rules_see_only_lines_that_c4_has_left():
    good, cookies = "It has three words.\n", "We use { cookies. We use cookies.\n"
    (row,) = counted([good * 4 + "Lorem ipsum { here\nJavaScript has { brackets.\n" + cookies])
    assert (row[lines.SENTENCES], row[lines.KEPT_LINES]) == (4, 4)
    assert (row[lines.LOREM_IPSUM], row[lines.CURLY_BRACKETS]) == (0, 1)  # before policy
    assert (row[lines.ALL_SENTENCES], row[lines.ALL_CURLY_BRACKETS]) == (7, 3)


def test_a_document_does_not_see_its_neighbours():
    texts = ["lorem ", "ipsum", "java", "script."]
    assert counted(texts) == [counted([text])[0] for text in texts]
