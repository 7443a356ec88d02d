import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import ERRORS, Fields
from shards.errors import RecipeError

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\t\x00😀é'))


@given(TEXT.filter(lambda text: text and not text.isspace()), st.booleans(), st.booleans())
def test_text_survives_any_escaping(one_row, text, ensure_ascii, spaced):
    separators = (" , ", " : ") if spaced else (",", ":")
    line = json.dumps({"text": text, "id": "a"}, ensure_ascii=ensure_ascii, separators=separators)
    row = one_row(line.encode())
    if text.strip(" \t\n\r\v\f"):
        assert (row["text"], row["error"]) == (text, None)
    else:
        assert (row["text"], row["error"]) == (None, "empty_text")


def test_every_escape(one_row):
    row = one_row(rb'{"text": "\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00\uFFFF"}')
    assert row["text"] == '"\\/\b\f\n\r\tAé€😀\uffff'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"a"', "a"),
        ("7", "7"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ("null", None),
        ("1.5", "1.5"),
        ("true", "true"),
        ('["é", 1]', '["é", 1]'),
        (r'"\ud800"', "?"),
    ],
)
def test_an_odd_id_costs_no_document(one_row, value, shown):
    row = one_row(f'{{"id": {value}, "text": "t", "x": NaN, "y": "\\ud800"}}'.encode())
    assert (row["id"], row["text"], row["error"]) == (shown, "t", None)


def test_field_names(one_row):
    fields = Fields(text_field="content", id_field="url", url_field="url", source_field="meta.src")
    row = one_row(b'{"content": "t", "url": "u", "meta.src": "s", "text": 5}', fields=fields)
    assert row == {
        "position": 0,
        "id": "u",
        "url": "u",
        "source": "s",
        "text": "t",
        "error": None,
        "detail": None,
    }


def test_text_field_cannot_be_the_id(one_row):
    with pytest.raises(RecipeError, match="text_field = 'id'"):
        one_row(b"{}", fields=Fields(text_field="id"))


@pytest.mark.parametrize(
    ("line", "error", "detail"),
    [
        (b'{"text": "a"', "bad_json", "expecting ',' delimiter at character 12 of '{\"text\""),
        (b'{"text": "a"} x', "bad_json", "extra data at character 14"),
        (b'{"text": "a\x01"}', "bad_json", "invalid control character at"),
        (rb'{"text": "\q"}', "bad_json", "invalid \\escape"),
        (b"[1]", "bad_json", "not an object but an array: '[1]'"),
        (b"null", "bad_json", "not an object but null"),
        (b'{"x":' + b"[" * 100_000, "bad_json", "nested too deeply"),
        (b'{"id": ' + b"1" * 5000 + b', "text": "a"}', "bad_json", "Exceeds the limit"),
        (b"\xff", "bad_utf8", "invalid start byte at byte 17, in b'\\xff'"),
        (b'{"text": "a\xff"}', "bad_utf8", "invalid start byte at byte 28, in"),
        (b'{"id": "\xc3(", "text": "a"}', "bad_utf8", "invalid continuation byte at byte 25"),
        (rb'{"text": "ab\ud800"}', "bad_utf8", r"lone surrogate \ud800 at character 2"),
        (b'{"x": 1}', "missing_text", "the field 'text' is missing: '{\"x\": 1}'"),
        (b'{"text": null}', "missing_text", "the field 'text' is null"),
        (b'{"text": 1}', "text_not_string", "the field 'text' is a number"),
        (b'{"text": ["a"]}', "text_not_string", "the field 'text' is an array"),
        (b'{"text": true}', "text_not_string", "the field 'text' is a boolean"),
        (b'{"text": ""}', "empty_text", None),
        (b'{"text": " \\n\\u000b"}', "empty_text", "the text has 3 bytes, all white space"),
    ],
)
def test_bad_lines_harm_no_other(memory, line, error, detail):
    good = b'{"text": "good"}'
    first, bad, last = memory.rows("x.jsonl", b"\n".join([good, line, good]))
    assert (first["text"], last["text"]) == ("good", "good")
    assert (bad["position"], bad["text"], bad["error"]) == (17, None, error)
    assert error in ERRORS
    assert (bad["detail"] or "").startswith(detail or "")


def test_a_bad_record_keeps_what_is_known(one_row):
    row = one_row(b'{"id": 3, "source": "s", "url": "u", "text": 1}')
    assert (row["id"], row["source"], row["url"]) == ("3", "s", "u")


def test_unused_fields_are_not_checked_for_utf8(one_row):
    assert one_row(b'{"junk": "\xff", "text": "t"}')["text"] == "t"


def test_byte_order_mark(memory):
    good, bad = memory.rows("x.jsonl", b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}')
    assert (good["position"], good["text"]) == (0, "a")
    assert bad["error"] == "bad_json"


def test_nan_in_another_field_is_what_python_writes(one_row):
    assert one_row(json.dumps({"score": math.nan, "text": "t"}).encode())["text"] == "t"
