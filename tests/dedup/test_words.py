import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.words import (
    max_elements,
    read_characters,
    read_spaced,
    read_word_spans,
    read_words,
    splitmix64,
    tables,
)

TEXTS = st.text(
    st.one_of(
        st.sampled_from("aAbB kKß \n_-'9é世界ก็นี่รΣσςKſİ\u0301\u200d"),
        st.characters(codec="utf-8", max_codepoint=0x1FFFF),
    ),
    max_size=60,
)

# Longer than a block, with words that end, start and go on at its edges.
PIECES = ["abc", "Word12 ", "é", "A" * 9, " ", "x" * 70, "漢", "ก็", ". ", "eightLet", "K", "ß"]
LONG_TEXTS = st.lists(st.sampled_from(PIECES), max_size=80).map("".join)
BROKEN = [
    b"\xc3",
    b"\xe4\xb8",
    b"\x96",
    b"\xff",
    b"\xe0\x81\x81",
    b"\xf0\x80\x81\x81",
    b"\xed\xa0\x80",
]
SOUND = [b"ab ", b"long words here ", "é".encode()]
BYTES = st.lists(st.sampled_from(BROKEN + SOUND), max_size=60).map(b"".join)


def words(raw, room=10_000, start=0):
    """Read `raw` with an output buffer of `room` words, as often as it takes."""
    data = np.frombuffer(raw, dtype=np.uint8)
    out = np.empty(room, dtype=np.uint64)
    found, at = [], start
    while at < len(raw):
        at, count = read_words(data, at, len(raw), tables().characters, tables().ascii, out, 0)
        found += out[:count].tolist()
    return found


def spaced(raw, room=10_000):
    data = np.frombuffer(raw, dtype=np.uint8)
    out = np.empty(room, dtype=np.uint64)
    found, at = [], 0
    while at < len(raw):
        at, count = read_spaced(data, at, len(raw), tables("space").ascii, out, 0)
        found += out[:count].tolist()
    return found


def characters(raw, room=10_000):
    data = np.frombuffer(raw, dtype=np.uint8)
    out = np.empty(room, dtype=np.uint64)
    found, at = [], 0
    while at < len(raw):
        before = at
        at, count = read_characters(data, at, len(raw), tables().characters, out, 0, not found)
        found += out[:count].tolist()
        if at == before:
            break
    return found


@given(TEXTS | LONG_TEXTS)
@settings(max_examples=400, deadline=None)
def test_words_are_the_oracles(oracle, text):
    found = words(text.encode())
    assert oracle.pattern(found) == oracle.pattern(oracle.words(text))
    assert len(found) <= max_elements(len(text.encode()), "word")


@given(TEXTS | LONG_TEXTS, st.integers(2, 40))
@settings(max_examples=150, deadline=None)
def test_stopping_when_the_room_ends_changes_nothing(text, room):
    raw = text.encode()
    assert words(raw, room) == words(raw)
    assert characters(raw, room) == characters(raw)
    assert spaced(raw, room) == spaced(raw)
    assert len(characters(raw)) <= max_elements(len(raw), "char")


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("Grüße, WELT!", "grüße welt", True),
        ("don't", "don t", True),
        ("K", "k", True),  # Kelvin sign folds to k
        ("straße", "strasse", False),
        ("ab c", "a bc", False),
        ("漢字", "漢 字", True),  # no spaces between words in Han
        ("漢 a字", "漢a 字", True),
        ("한국어", "한 국어", False),  # Hangul has spaces
        ("ที่นี่", "ที่ นี่", True),  # Thai words end after their marks
        ("ก่a", "ก่ a", True),
        ("ไทย", "ไ ทย", False),
        ("a" * 64, "a" * 128, False),
        ("", "... !", True),
    ],
)
def test_word_v1(left, right, equal):
    assert (words(left.encode()) == words(right.encode())) == equal


@given(BYTES)
@settings(deadline=None)
def test_broken_utf8_separates_words(oracle, raw):
    expected = oracle.words(raw.decode(errors="replace"))
    assert oracle.pattern(words(raw)) == oracle.pattern(expected)


@given(TEXTS.map(str.encode) | LONG_TEXTS.map(str.encode) | BYTES)
@settings(max_examples=200, deadline=None)
def test_spans_are_where_the_words_are(raw):
    data = np.frombuffer(raw, dtype=np.uint8)
    starts, ends = np.empty(len(raw), dtype=np.int64), np.empty(len(raw), dtype=np.int64)
    table = tables()
    count = read_word_spans(data, 0, len(raw), table.characters, table.ascii, starts, ends)
    spans = list(zip(starts[:count].tolist(), ends[:count].tolist(), strict=True))
    assert [words(raw[a:b]) for a, b in spans] == [[word] for word in words(raw)]
    assert spans == sorted(spans)
    gaps = [0, *(place for span in spans for place in span), len(raw)]
    assert all(words(raw[a:b]) == [] for a, b in zip(gaps[::2], gaps[1::2], strict=True))


def test_broken_utf8_separates_and_is_never_read_past():
    whole = words(b"ab cd")
    for junk in (b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80", b"\xc0\xaf", b"\xf8"):
        assert words(b"ab" + junk + b" cd" + junk) == whole
    # The continuation byte stands beyond the end: it belongs to the next document.
    data = np.frombuffer("aé".encode(), dtype=np.uint8)
    out = np.empty(8, dtype=np.uint64)
    at, count = read_words(data, 0, 2, tables().characters, tables().ascii, out, 0)
    assert (at, out[:count].tolist()) == (2, words(b"a"))


def test_char_v1_collapses_separators_and_strips_the_ends():
    assert characters(b"  Ab -- c. ") == characters(b"ab c")
    assert len(characters(b"ab c")) == 4
    assert characters("漢 字".encode()) != characters("漢字".encode())
    assert characters(b" ... ") == []


@given(TEXTS.filter(lambda text: not set(text) & set("\x1c\x1d\x1e\x1f")))
@settings(deadline=None)
def test_space_v1_is_pythons_split(oracle, text):
    # (but for U+001C–001F, which are white space to Python only)
    found = spaced(text.encode())
    assert oracle.pattern(found) == oracle.pattern(text.split())
    assert len(found) <= max_elements(len(text.encode()), "space")


def test_splitmix64_reference_value():
    # First output of the reference generator for seed 0.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
