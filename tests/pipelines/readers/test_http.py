import gzip
import sys
import zlib
from contextlib import suppress
from types import ModuleType

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import codings, html
from pipelines.readers.codings import PageError
from pipelines.readers.http import content_type, parse_response

BODY = b"<p>One page</p>"


def response(body=BODY, *headers, status=b"HTTP/1.1 200 OK", end=b"\r\n"):
    lines = [status, *(headers or (b"Content-Type: text/html",))]
    return end.join(lines) + end + end + body


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_kind_and_charset_are_the_headers(end):
    raw = response(BODY, b'CONTENT-TYPE: Text/HTML; charset="EUC-JP"', end=end)
    assert parse_response(raw, 99) == (BODY, "text/html", "euc-jp")
    assert parse_response(response(BODY, b"X: y"), 99) == (BODY, "text/html", None)


CHUNKED = b"5\r\n<p>On\r\n0A;x=y\r\ne page</p>\r\n0\r\n\r\n"
GZIP = b"Content-Encoding: gzip"
PLAIN = b"Content-Type: text/plain"
TEXT = b"A plain text of some words"
RAW_DEFLATE = zlib.compress(BODY)[2:-4]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"Content-Encoding: gzip", gzip.compress(BODY)),
        (b"Content-Encoding: gzip", BODY),  # the crawler has undone it
        (b"Content-Encoding: deflate", zlib.compress(BODY)),
        (b"Content-Encoding: deflate", RAW_DEFLATE),
        (b"Content-Encoding: zstd", zstandard.compress(BODY)),
        (b"Content-Encoding: zstd", BODY),
        (b"Content-Encoding: gzip", gzip.compress(BODY[:5]) + gzip.compress(BODY[5:])),
        (b"Content-Encoding: gzip", gzip.compress(BODY) + bytes(9) + b"left over"),
        (b"Content-Encoding: deflate", BODY),
        (b"Content-Encoding: none", BODY),
        (b"Content-Encoding: UTF-8", BODY),
        (b"Content-Encoding: gzip\r\nContent-Encoding: gzip", gzip.compress(gzip.compress(BODY))),
        (b"Content-Encoding: gzip\r\nContent-Encoding: gzip", gzip.compress(BODY)),
        (b"Content-Encoding: deflate, gzip", gzip.compress(zlib.compress(BODY))),
        (b"Transfer-Encoding: chunked", CHUNKED),
        (b"Transfer-Encoding: chunked", BODY),
    ],
)
def test_codings_are_undone_where_the_body_has_them(coding, body):
    assert parse_response(response(body, coding), 99).body == BODY


@pytest.mark.parametrize("coding", [b"deflate", b"br", b"gzip", b"zstd", b"utf-8"])
@pytest.mark.parametrize(
    "text", [TEXT, b"Ks[c{ looks like deflate", "é plain text, cu".encode()[:-1]]
)
def test_a_plain_text_that_was_decoded_stays(coding, text):
    raw = response(text, PLAIN, b"Content-Encoding: " + coding)
    assert parse_response(raw, 99).body == text


def test_a_page_cut_off_in_its_first_chunk_is_read():
    body = b"2000\r\n" + BODY
    assert parse_response(response(body, b"Transfer-Encoding: chunked"), 99).body == BODY
    packed = b"2000\r\n" + gzip.compress(TEXT)
    assert (
        parse_response(response(packed, PLAIN, b"Transfer-Encoding: chunked", GZIP), 99).body
        == TEXT
    )


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("text/html; charset=UTF-8", "utf-8"),
        ("text/html;x=y;CHARSET = 'euc-jp'", "euc-jp"),
        ('text/html; charset="big5', "big5"),
        ("text/html; charset=latin1; charset=big5", "latin1"),
        ("text/html; charset*=a\0b''c", None),
        ("text/html; charset*" + "9" * 5000 + "=x", None),
        ("text/html; charset=" + "a" * 65, None),
        ("text/html; charset=utf-8\0", None),
        ("text/html; charset=\xff", None),
        ("text/html; charset=", None),
        # The parser of e-mail takes the square of this.
        ("text/html;" + " ;" * 1_000_000 + "charset=big5", "big5"),
    ],
)
def test_a_charset_is_read_from_any_header(value, found):
    assert content_type(value) == ("text/html", found)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("text/html charset=utf-8", "text/html"),
        ("text/html, text/html", "text/html"),
        ('"text/plain"; charset=utf-8', "text/plain"),
        ("image/png, text/html", "image/png"),
        (" ", "text/html"),
    ],
)
def test_a_media_type_ends_where_servers_end_it(value, found):
    assert content_type(value)[0] == found


@pytest.mark.parametrize("name", [b"none", b"UTF-8", b"iso-8859-1", b"8bit", b"Shift_JIS"])
@pytest.mark.parametrize("body", [b"short text", "Größe <p>ein Text".encode("latin-1")])
def test_a_coding_that_is_none_changes_nothing(name, body):
    assert parse_response(response(body, b"Content-Encoding: " + name), 99).body == body


def test_codings_of_the_transfer_are_undone_too():
    packed = gzip.compress(BODY)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    raw = response(chunks, b"Transfer-Encoding: gzip, chunked")
    assert parse_response(raw, 99).body == BODY
    twice = zlib.compress(packed)
    raw = response(twice, b"Transfer-Encoding: deflate", b"Content-Encoding: gzip")
    assert parse_response(raw, 99).body == BODY


@given(st.binary(max_size=60))
def test_no_header_is_more_than_a_page_or_a_reason(value):
    for header in (b"Content-Type: text/html;", b"Content-Encoding:", b"Transfer-Encoding:", b""):
        with suppress(PageError):
            assert parse_response(response(BODY, header + value), 99).kind == "text/html"


@pytest.fixture
def brotli():
    return pytest.importorskip("brotli")


def test_brotli_is_undone_where_the_body_has_it(brotli):
    raw = brotli.compress(BODY * 9)
    for body, text in ((raw, BODY * 9), (BODY, BODY), (b"\xef\xbb\xbf" + BODY,) * 2, (b"", b"")):
        assert parse_response(response(body, b"Content-Encoding: br"), 999).body == text
    cut = parse_response(response(raw[:-1], b"Content-Encoding: br"), 999).body
    assert (BODY * 9).startswith(cut)
    both = response(brotli.compress(gzip.compress(BODY)), b"Content-Encoding: gzip, br")
    assert parse_response(both, 999).body == BODY
    failed = "brotli: decoder failed"
    cut_off = "cut off before its first byte of text"
    for wrong, fault in ((b"\xff\xff garbage", failed), (raw + b"x", failed), (raw[:1], cut_off)):
        with pytest.raises(PageError) as caught:
            parse_response(response(wrong, b"Content-Encoding: br"), 999)
        assert caught.value.args == ("bad_http", f"Content-Encoding 'br': {fault}")


@pytest.mark.parametrize("limit", [1000, 4_000_000])
def test_a_brotli_bomb_is_stopped_at_the_limit(brotli, limit):
    bomb = brotli.compress(bytes(50_000_000), lgwin=24, quality=5)
    assert len(bomb) < 1000
    with pytest.raises(PageError) as caught:
        parse_response(response(bomb, b"Content-Encoding: br"), limit)
    assert caught.value.args[0] == "record_too_large"


@pytest.mark.parametrize("module", [None, ModuleType("brotli")])
def test_a_missing_or_old_brotli_is_named_with_its_remedy(monkeypatch, module):
    if module:  # one before 1.2, which cannot bound what it returns
        module.Decompressor = type("Decompressor", (), {})
    monkeypatch.setitem(sys.modules, "brotli", module)
    codings.brotli.cache_clear()
    try:
        assert parse_response(response(TEXT, b"Content-Encoding: br"), 99).body == TEXT
        with pytest.raises(PageError) as caught:
            parse_response(response(b"\x0b\x02\x80abcde\x03", b"Content-Encoding: br"), 99)
        reason, detail = caught.value.args
        assert reason == "bad_http"
        assert "pip install 'assay-corpus[web]'" in detail
        assert html.definition().endswith("without brotli)")
    finally:
        codings.brotli.cache_clear()


@pytest.mark.parametrize("codec", [gzip, zstandard])
def test_a_bomb_is_stopped_at_the_limit(codec):
    bomb = codec.compress(bytes(50_000_000))
    coding = {gzip: b"gzip", zstandard: b"zstd"}[codec]
    assert len(bomb) < 100_000
    with pytest.raises(PageError) as caught:
        parse_response(response(bomb, b"Content-Encoding: " + coding), 1000)
    assert caught.value.args == (
        "record_too_large",
        "the page decompresses to more than 1000 bytes",
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"example.org. IN A 1.2.3.4", "not_text"),
        (response(b"\xff\xd8", b"Content-Type: image/jpeg"), "not_text"),
        (response(status=b"HTTP/1.1 301 Moved Permanently"), "http_status"),
        (response(status=b"HTTP/1.1"), "http_status"),
        (response(b"\x1f\x9d\x90x", b"Content-Encoding: compress"), "bad_http"),
        (response(b"x", b"Content-Encoding: gzip", *[b"Content-Encoding: br"] * 4), "bad_http"),
        (response(gzip.compress(BODY) + gzip.compress(BODY)[:-8] + bytes(8), GZIP), "bad_http"),
        (response(b"\x1f\x8b\x08garbage", b"Content-Encoding: gzip"), "bad_http"),
        (response(b"\x28\xb5\x2f\xfdgarbage", b"Content-Encoding: zstd"), "bad_http"),
        (response(b"x", b"Content-Encoding: gzip, gzip, gzip, gzip, gzip"), "bad_http"),
    ],
)
def test_what_is_no_page_has_a_reason(raw, reason):
    with pytest.raises(PageError) as caught:
        parse_response(raw, 99)
    assert caught.value.args[0] == reason


@given(st.binary(max_size=200), st.sampled_from([b"chunked", b"gzip", b"deflate", b"zstd", b"br"]))
def test_no_bytes_are_more_than_a_page_or_a_reason(body, coding):
    for header in (b"Transfer-Encoding: ", b"Content-Encoding: "):
        try:
            assert len(parse_response(response(body, header + coding), 300).body) <= 300
        except PageError as error:
            reason, detail = error.args
            assert reason in {"bad_http", "record_too_large"}
            assert detail
