import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import SIGNALS, SignalsConfig, compute_signals, definitions, signal_fields
from shards.config import decode
from shards.errors import RecipeError
from shards.text import flat

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


REPETITION = [name for name in SIGNALS if name.startswith(("gopher_dup", "gopher_top"))]


def signals(texts: list[str]) -> dict:
    return compute_signals(*flat(pa.array(texts, pa.large_string())), SignalsConfig())


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_columns_fit_the_schema_and_depend_on_one_document_each(texts):
    columns = signals(texts)
    assert list(columns) == list(SIGNALS) == [field.name for field in signal_fields()]
    for field in signal_fields():
        assert pa.array(columns[field.name]).type == field.type
        assert np.isfinite(columns[field.name]).all()
    alone = [signals([text]) for text in texts]
    for name, values in columns.items():
        assert values.tolist() == [own[name][0] for own in alone]


def test_values_by_hand():
    text = "The cat, and # the dög...\n- 1 2"
    found = {name: values[0] for name, values in signals([text]).items()}
    assert not any(found.pop(name) for name in REPETITION)
    others = {
        name: found.pop(name) for name in SIGNALS if name.startswith(("c4", "fine", "ref", "rp"))
    }
    assert others == {
        "c4_terminal_lines": np.float32(1 / 2),
        "c4_few_word_lines": 0,
        "c4_javascript_lines": 0,
        "c4_policy_lines": 0,
        "c4_kept_lines": np.float32(0 / 2),  # three dots are an ellipsis
        "c4_sentences": 0,
        "c4_lorem_ipsum": 0,
        "c4_curly_brackets": 0,
        "fineweb_punctuated_lines": np.float32(1 / 2),
        "fineweb_short_lines": 1,
        "refinedweb_uppercase_lines": 0,
        "refinedweb_numeric_lines": np.float32(1 / 2),
        "refinedweb_counter_lines": 0,
        "refinedweb_one_word_lines": 0,
        "refinedweb_navigation_lines": 0,
        "refinedweb_corrected_words": np.float32(3 / 9),
        "rpv2_unique_words": np.float32(6 / 7),
        "rpv2_unigram_entropy": np.float32(np.log(7) - 2 * np.log(2) / 7),
        "rpv2_all_caps_words": 0,
        "rpv2_uppercase_chars": np.float32(1 / 31),
        "rpv2_digit_chars": np.float32(2 / 31),
        "rpv2_sentences": 1,
        "rpv2_lorem_ipsum": 0,
        "rpv2_curly_brackets": 0,
    }
    assert found == {
        "bytes": 32,
        "chars": 31,
        "zstd_bpb": found["zstd_bpb"],
        "gopher_words": 9,
        "gopher_mean_word_length": np.float32(23 / 9),
        "gopher_hash_ratio": np.float32(1 / 9),
        "gopher_ellipsis_ratio": np.float32(1 / 9),
        "gopher_bullet_lines": np.float32(1 / 2),
        "gopher_ellipsis_lines": np.float32(1 / 2),
        "gopher_alphabetic_words": np.float32(5 / 9),
        "gopher_stop_words": 2,
    }


def test_repetition_by_hand():
    text = "a bb c d e ff\n\na bb c d e ff\nccc\n\na bb c d e ff"
    found = {name: values[0] for name, values in signals([text]).items() if name in REPETITION}
    chars, lines, paragraphs = 8 * 3 + 3, 13 * 3 + 3, 13 * 3 + 4
    assert found == {
        "gopher_duplicate_lines": np.float32(2 / 4),
        "gopher_duplicate_line_chars": np.float32(26 / lines),
        "gopher_duplicate_paragraphs": np.float32(1 / 3),
        "gopher_duplicate_paragraph_chars": np.float32(13 / paragraphs),
        "gopher_top_2gram": np.float32(3 * 3 / chars),
        "gopher_top_3gram": np.float32(3 * 4 / chars),
        "gopher_top_4gram": np.float32(3 * 5 / chars),
        "gopher_duplicate_5gram": np.float32(2 * 8 / chars),
        "gopher_duplicate_6gram": np.float32(2 * 8 / chars),
        "gopher_duplicate_7gram": 0,
        "gopher_duplicate_8gram": 0,
        "gopher_duplicate_9gram": 0,
        "gopher_duplicate_10gram": 0,
    }


def test_the_level_is_the_recipes():
    squares = " ".join(str(number * number) for number in range(2000))
    data, offsets = flat(pa.array([squares], pa.large_string()))
    by_level = [
        compute_signals(data, offsets, SignalsConfig(zstd_level=level))["zstd_bpb"][0]
        for level in (1, 19)
    ]
    assert by_level[0] != by_level[1]
    with pytest.raises(RecipeError, match=r"signals\.zstd_level = 23"):
        decode({"signals": {"zstd_level": 23}}, "signals", SignalsConfig)


def test_definitions_are_plain_and_name_what_they_depend_on():
    found = msgspec.to_builtins(definitions())
    assert "Unicode 14.0" in found["gopher"]
    assert "libzstd" in found["zstd_bpb"]
