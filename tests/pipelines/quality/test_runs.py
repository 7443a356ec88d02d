"""Runs of ASCII letters and events against Python's own characters."""

import string

import numba
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.quality import runs

LETTERS = set(string.ascii_letters)
TEXTS = st.text(st.sampled_from("aZ jJ.\né世😀") | st.characters(exclude_categories=["Cs"]))


@numba.njit
def lower(data, at, end, hashed):
    return runs.hash_lower(data, at, end, hashed)


@numba.njit
def found(data, begin, end, last, events, is_event):
    return runs.find_events(data, begin, end, last, events, is_event)


@numba.njit
def decoded(data, at, end):
    return runs.decode(data, at, end)


def buffer(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@given(TEXTS, st.sampled_from(["", "j"]))
@example("", "")
def test_events_are_all_other_characters_and_the_end(text, letters):
    data = buffer(text)
    events = np.empty(runs.PIECE_BYTES + 1, np.int64)
    count = found(data, 0, len(data), len(data), events, runs.event_bytes(letters))
    places = [
        len(text[:at].encode())
        for at, character in enumerate(text)
        if character not in LETTERS or character.lower() in letters
    ]
    assert events[:count].tolist() == [*places, len(data)]


def test_a_piece_in_the_middle_has_no_end():
    events = np.empty(runs.PIECE_BYTES + 1, np.int64)
    count = found(buffer("a b c d"), 2, 4, 7, events, runs.EVENTS)
    assert events[:count].tolist() == [3]


@given(TEXTS)
@example(
    "".join(map(chr, [0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]))
)
def test_characters_decode(text):
    data, at, points = buffer(text), 0, []
    while at < len(data):
        point, at = decoded(data, at, len(data))
        points.append(chr(point))
    assert points == list(text)
    assert decoded(data, at, len(data)) == (0x0A, at + 1)


RUNS = st.text(string.ascii_letters, max_size=20)


@given(st.text("aé. ", max_size=9), RUNS, st.text("aé. ", max_size=9))
def test_a_hash_is_that_of_the_letters_in_lower_case(before, run, after):
    """Wherever they stand: the last bytes of a buffer are read in another way than others."""
    begin = len(before.encode())
    hashed, uppers = lower(buffer(before + run + after), begin, begin + len(run), runs.SEED)
    assert uppers == sum(map(str.isupper, run))
    assert hashed == lower(buffer(run.lower()), 0, len(run), runs.SEED)[0]


@given(st.sets(RUNS.map(str.lower), min_size=2))
def test_different_runs_have_different_hashes(words):
    hashes = {lower(buffer(word), 0, len(word), runs.SEED)[0] for word in words}
    assert len(hashes) == len(words)
