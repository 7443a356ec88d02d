from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate import bits
from pipelines.curate.cut import REPEATED_TEXT
from pipelines.curate.judge import CONTAMINATED
from pipelines.filters import (
    RESERVED,
    Bound,
    FiltersConfig,
    Rule,
    apply_rules,
    make_rules,
    rule_columns,
)
from pipelines.quality import SIGNALS, SignalsConfig, compute_signals, known_signals
from pipelines.readers import ERRORS
from pipelines.report.data import DUPLICATES
from shards.config import decode
from shards.errors import RecipeError
from shards.text import flat


def bounds(**columns: tuple[float | None, float | None]) -> FiltersConfig:
    return FiltersConfig(bounds={name: Bound(*limits) for name, limits in columns.items()})


def test_the_papers_thresholds():
    rules = make_rules(FiltersConfig(presets=["gopher"]))
    assert [(rule.name, rule.threshold) for rule in rules] == [
        ("gopher_words_min", 50),
        ("gopher_words_max", 100_000),
        ("gopher_mean_word_length_min", 3),
        ("gopher_mean_word_length_max", 10),
        ("gopher_hash_ratio_max", 0.1),
        ("gopher_ellipsis_ratio_max", 0.1),
        ("gopher_bullet_lines_max", 0.9),
        ("gopher_ellipsis_lines_max", 0.3),
        ("gopher_alphabetic_words_min", 0.8),
        ("gopher_stop_words_min", 2),
    ]
    assert rules[0] == Rule("gopher_words_min", "gopher_words", "min", 50.0)


def test_the_papers_repetition_thresholds():
    rules = make_rules(FiltersConfig(presets=["gopher-repetition"]))
    assert {rule.column.removeprefix("gopher_"): rule.threshold for rule in rules} == {
        "duplicate_lines": 0.3,
        "duplicate_line_chars": 0.2,
        "duplicate_paragraphs": 0.3,
        "duplicate_paragraph_chars": 0.2,
        "top_2gram": 0.2,
        "top_3gram": 0.18,
        "top_4gram": 0.16,
        "duplicate_5gram": 0.15,
        "duplicate_6gram": 0.14,
        "duplicate_7gram": 0.13,
        "duplicate_8gram": 0.12,
        "duplicate_9gram": 0.11,
        "duplicate_10gram": 0.1,
    }
    assert {rule.op for rule in rules} == {"max"}


def test_the_thresholds_of_c4_and_fineweb():
    rules = make_rules(FiltersConfig(presets=["fineweb", "c4"]))
    assert [(rule.name, rule.threshold) for rule in rules] == [
        ("gopher_duplicate_line_chars_max", 0.1),
        ("c4_sentences_min", 5),
        ("c4_lorem_ipsum_max", 0),
        ("c4_curly_brackets_max", 0),
        ("fineweb_punctuated_lines_min", 0.12),
        ("fineweb_short_lines_max", 0.67),
    ]


@pytest.mark.parametrize("presets", [*permutations(["gopher-repetition", "fineweb"])])
def test_the_stricter_of_two_presets_holds_in_any_order(presets):
    limits = {rule.name: rule.threshold for rule in make_rules(FiltersConfig([*presets]))}
    assert limits["gopher_duplicate_line_chars_max"] == 0.1


def test_no_filters_no_rules():
    assert make_rules(FiltersConfig()) == ()
    failed, measured = apply_rules((), {"bytes": np.arange(3)})
    assert failed.tolist() == [-1, -1, -1]
    assert np.isnan(measured).all()


def test_own_bounds_replace_a_presets_side_by_side():
    config = decode(
        {"filters": {"presets": ["gopher"], "bounds": {"gopher_words": {"min": 10}}}},
        "filters",
        FiltersConfig,
    )
    limits = {rule.name: rule.threshold for rule in make_rules(config)}
    assert (limits["gopher_words_min"], limits["gopher_words_max"]) == (10, 100_000)


def test_order_does_not_depend_on_the_recipe():
    one = make_rules(bounds(zstd_bpb=(1, 5), bytes=(9, None)))
    other = make_rules(bounds(bytes=(9, None), zstd_bpb=(1, 5)))
    assert one == other
    assert [rule.name for rule in one] == ["bytes_min", "zstd_bpb_min", "zstd_bpb_max"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"bounds": {"pii_email": {"max": 1}}}, "no such signal; signals.pii = true adds it"),
        ({"bounds": {"list_bad": {"max": 1}}}, "signals.word_lists.bad adds it"),
        ({"keep": {"x": " "}}, "filters.keep.x is empty"),
        ({"keep": {"x": "lang == 'en'"}}, 'signals.language = "fasttext" adds it'),
        ({"bounds": {"zstd_bbp": {"min": 1}}}, "zstd_bbp: no such signal; did you mean 'zstd_bpb'"),
        ({"bounds": {"bytes": {}}}, "bytes: give min, max or both"),
        ({"bounds": {"bytes": {"min": 5, "max": 4}}}, "min = 5 is above max = 4"),
        ({"bounds": {"bytes": {"min": float("nan")}}}, "bytes: min and max must be finite"),
        ({"bounds": {"bytes": {"least": 1}}}, "unknown key .*least"),
        ({"presets": ["c5"]}, "c5"),
        (
            {"presets": ["gopher"], "bounds": {"gopher_words": {"max": 40}}},
            "gopher_words: min = 50 is above max = 40",
        ),
    ],
)
def test_unusable_filters(table, message):
    with pytest.raises(RecipeError, match=message):
        make_rules(decode({"filters": table}, "filters", FiltersConfig))


def test_the_first_failing_rule_and_its_value_are_reported():
    rules = make_rules(bounds(bytes=(10, 100), zstd_bpb=(1, 5)))
    columns = {
        "bytes": np.array([10, 9, 101, 50, 100, 5]),
        "zstd_bpb": np.array([1, 3, 3, 0.5, 6, 9], np.float32),
    }
    failed, measured = apply_rules(rules, columns)
    assert (failed.dtype, measured.dtype) == (np.int16, np.float64)
    names = [rules[index].name if index >= 0 else "" for index in failed]
    assert names == ["", "bytes_min", "bytes_max", "zstd_bpb_min", "zstd_bpb_max", "bytes_min"]
    np.testing.assert_array_equal(measured, [np.nan, 9, 101, 0.5, 6, 5])


def test_equality_is_kept_in_the_columns_own_type():
    rules = make_rules(bounds(gopher_hash_ratio=(None, 0.1), gopher_alphabetic_words=(0.8, None)))
    exact = {
        "gopher_hash_ratio": np.array([1 / 10, np.nextafter(np.float32(0.1), 1)], np.float32),
        "gopher_alphabetic_words": np.array([4 / 5, 4 / 5], np.float32),
    }
    assert apply_rules(rules, exact)[0].tolist() == [-1, 0]


def test_what_was_not_measured_is_not_kept():
    rules = make_rules(bounds(zstd_bpb=(None, 5)))
    failed, measured = apply_rules(rules, {"zstd_bpb": np.array([np.nan, 1], np.float32)})
    assert failed.tolist() == [0, -1]
    assert np.isnan(measured[0])


def test_a_missing_column_is_named():
    rules = make_rules(bounds(zstd_bpb=(1, None)))
    with pytest.raises(RecipeError, match=r"rule zstd_bpb_min: no column 'zstd_bpb'; did you mean"):
        apply_rules(rules, {"zstd_bp": np.array([1.0])})


@given(
    st.dictionaries(
        st.sampled_from(sorted(SIGNALS)),
        st.tuples(st.none() | st.integers(0, 5), st.none() | st.integers(5, 9)).filter(any),
    ),
    st.data(),
)
def test_apply_is_a_plain_loop(limits, data):
    rules = make_rules(bounds(**limits))
    count = data.draw(st.integers(0, 5))
    columns = {
        name: np.array(
            data.draw(st.lists(st.integers(0, 10), min_size=count, max_size=count)), np.float32
        )
        for name in SIGNALS
    }
    failed, measured = apply_rules(rules, columns)
    for row in range(count):
        wrong = [
            index
            for index, rule in enumerate(rules)
            if (rule.op == "min" and columns[rule.column][row] < rule.threshold)
            or (rule.op == "max" and columns[rule.column][row] > rule.threshold)
        ]
        assert failed[row] == (wrong[0] if wrong else -1)
        if wrong:
            assert measured[row] == columns[rules[wrong[0]].column][row]


def words(count: int, extra: str = "") -> str:
    """`count` words, two of them stop words, none short or long on average."""
    return " ".join(["the", "with", *["word"] * (count - 2)]) + extra


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (words(50), ""),
        (words(49), "gopher_words_min"),
        (words(100_000), ""),
        (words(100_001), "gopher_words_max"),
        ("the be " + "a " * 48 + "b" * 60, "gopher_mean_word_length_min"),
        ("the be " + "abcdefghijkl " * 60, "gopher_mean_word_length_max"),
        (words(45, " ##### a b c d"), ""),
        (words(45, " ###### a b c d"), "gopher_hash_ratio_max"),
        (words(45, " ...…...…… a b c d"), ""),
        (words(45, " ...…...……… a b c d"), "gopher_ellipsis_ratio_max"),
        (words(51) + "\n- word" * 9, ""),
        (words(51) + "\n- word" * 10, "gopher_bullet_lines_max"),
        (words(100) + "\nword" * 6 + "\nword..." * 3, ""),
        (words(100) + "\nword" * 5 + "\nword..." * 3, "gopher_ellipsis_lines_max"),
        (words(40) + " 1234" * 10, ""),
        (words(40) + " 1234" * 11, "gopher_alphabetic_words_min"),
        (words(50).replace("with", "the"), "gopher_stop_words_min"),
    ],
)
def test_the_gopher_preset_decides_at_the_papers_limits(text, reason):
    data, offsets = flat(pa.array([text], pa.large_string()))
    rules = make_rules(FiltersConfig(presets=["gopher"]))
    failed, _ = apply_rules(rules, compute_signals(data, offsets, SignalsConfig()))
    assert (rules[failed[0]].name if failed[0] >= 0 else "") == reason


def test_an_expression_is_a_rule_with_the_recipes_name():
    config = FiltersConfig(
        bounds={"bytes": Bound(min=10)},
        keep={"prose": "gopher_stop_words >= 2 or zstd_bpb < 3", "b": "chars * 2 > bytes"},
    )
    rules = make_rules(config)
    assert [rule.name for rule in rules] == ["bytes_min", "b", "prose"]
    assert rules[2].columns == ["gopher_stop_words", "zstd_bpb"]
    columns = {
        "bytes": np.array([9, 20, 20, 20]),
        "chars": np.array([9, 20, 20, 4]),
        "gopher_stop_words": np.array([0, 2, 0, 2]),
        "zstd_bpb": np.array([5, 5, 5, 5], np.float32),
    }
    failed, measured = apply_rules(rules, columns)
    assert failed.tolist() == [0, -1, 2, 1]
    assert np.isnan(measured).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("name", "expression", "message"),
    [
        ("prose", "zstd_bbp < 3", "filters.keep.prose: .*unknown column 'zstd_bbp'"),
        ("prose", "chars + 1", "not true or false"),
        ("two words", "chars > 1", "letters, digits and _"),
        ("chars_min", "chars > 1", "does not end in"),
        ("prose", "1 < 2", "keep.prose = '1 < 2': names no signal"),
        ("prose", "True", "names no signal"),
        ("near_duplicate", "chars > 1", "keep.near_duplicate: is what the ledger calls"),
        ("bad_json", "chars > 1", r"such as filters\.keep\.own_bad_json"),
    ],
)
def test_an_expression_that_cannot_be_a_rule_is_refused(name, expression, message):
    with pytest.raises(RecipeError, match=message):
        make_rules(FiltersConfig(keep={name: expression}))


def test_what_a_rule_cannot_compute_names_the_rule():
    rules = make_rules(FiltersConfig(keep={"big": "bytes * 9223372036854775807 > 0"}))
    assert apply_rules(rules, {"bytes": np.array([1, 0])})[0].tolist() == [-1, 0]
    with pytest.raises(RecipeError, match=r"filters\.keep\.big: .*beyond 64 bits"):
        apply_rules(rules, {"bytes": np.array([1, 2])})


def test_every_other_reason_of_the_ledger_is_reserved():
    assert {*bits._DROPPED_BY, CONTAMINATED, REPEATED_TEXT, *ERRORS, *DUPLICATES} < RESERVED


@pytest.mark.parametrize("table", [bounds(xylophone=(1, None)), {"prose": "xylophone < 1"}])
def test_an_unknown_signal_is_told_from_few_not_from_all(table):
    config = table if isinstance(table, FiltersConfig) else FiltersConfig(keep=table)
    with pytest.raises(RecipeError, match=r"xylophone.*assay explain") as caught:
        make_rules(config)
    assert len(str(caught.value)) < 240


def test_a_string_column_is_for_expressions():
    known = known_signals(SignalsConfig(language="fasttext"))
    with pytest.raises(RecipeError, match=r"bounds\.lang: is a string.* filters\.keep\.lang = "):
        make_rules(bounds(lang=(1, None)), known)
    config = FiltersConfig(keep={"spoken": "lang in ['en', 'de'] and lang_confidence > 0.5"})
    rules = make_rules(config, known)
    table = pa.table(
        {
            "lang": pa.array(["en", "fr", "de", None]),
            "lang_confidence": pa.array([0.9, 0.9, 0.2, None], pa.float32()),
        }
    )
    names = [name for rule in rules for name in rule.columns]
    columns = rule_columns(table, names)
    assert columns["lang"].tolist() == ["en", "fr", "de", ""]
    assert apply_rules(rules, columns)[0].tolist() == [-1, 0, 0, 0]
    assert apply_rules(rules, rule_columns(table[:0], names))[0].tolist() == []
