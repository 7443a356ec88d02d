import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import (
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    known_signals,
    word_lists,
)
from shards.errors import InputError, RecipeError
from shards.text import flat


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("\ufeffDarn\n\nOne Two\none two three\nétÉ\n...\n", "utf-8")
    return SignalsConfig(word_lists={"bad": str(path)})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Darn, DARN (darn) darned", 3),
        ("one two three, one  two! one\n2 two", 2),
        ("one", 0),
        ("été étÉ", 1),  # only ASCII letters have two cases
        ("... -- 1", 0),
        ("", 0),
    ],
)
def test_entries_are_counted_by_hand(config, text, count):
    batch = flat(pa.array([text, "darn"], pa.large_string()))
    columns = compute_signals(*batch, config)
    assert list(columns) == list(known_signals(config))
    assert columns["list_bad"].tolist() == [count, 1]
    assert columns["list_bad"].dtype == np.int64


@given(
    st.lists(st.sampled_from(["a", "b", "A", "c."])), st.sets(st.sampled_from("abc"), min_size=1)
)
def test_single_words_are_those_in_the_set(words, entries):
    table = {entry.encode(): [()] for entry in entries}
    plain = sum(word.strip(".").lower() in entries for word in words)
    assert word_lists.count(word_lists.words_of(" ".join(words).encode()), table) == plain


def test_the_definition_has_what_is_in_the_list_and_not_where_it_lies(config, tmp_path):
    (name, own), *_ = [item for item in definitions(config).items() if "word_list" in item[0]]
    assert name == "word_list bad"
    for text, same in (((tmp_path / "bad.txt").read_text("utf-8"), True), ("darn", False)):
        copy = tmp_path / f"{same}.txt"
        copy.write_text(text, "utf-8")
        assert (definitions(SignalsConfig(word_lists={"bad": str(copy)}))[name] == own) is same


def test_a_list_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="becomes a column"):
        check_signals(SignalsConfig(word_lists={"bad words": "x"}))
    for content, message in ((b"\n...\n", "without an entry"), (b"a\xff\n", "not UTF-8.*byte 1")):
        path = tmp_path / message[:7]
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            word_lists.load(str(path))
    with pytest.raises(InputError, match="cannot be opened"):
        definitions(SignalsConfig(word_lists={"bad": str(tmp_path / "none")}))


def test_a_list_that_was_rewritten_is_read_anew(tmp_path):
    path = tmp_path / "list"
    for word in ("ore", "silver"):
        path.write_text(f"{word}\n")
        found = word_lists.compute({"a": str(path)}, *flat(pa.array(["ore", "silver ore silver"])))
        assert found["list_a"].tolist() == ([1, 1] if word == "ore" else [0, 2])
