import sys
from contextlib import suppress
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers.bounds import DEEPEST, INDENTED
from pipelines.readers.codings import PageError
from pipelines.readers.html import definition, page_text
from pipelines.readers.http import Page
from shards.errors import PlatformError

ARTICLE = """<html><head><title>Rivers</title><style>p {}</style></head><body>
<nav><a href="/">Home</a> <a href="/about">About us</a></nav>
<main><h1>Rivers</h1><p>The river &amp; its valley are <b>long</b>, and it has many fish.</p>
<p>A second paragraph of prose follows the first one.</p><img alt="a boat"></main>
<script>var x = 1</script><footer>Imprint</footer></body></html>"""


def text(body, kind="text/html", charset=None):
    return page_text(Page(body if isinstance(body, bytes) else body.encode(), kind, charset))


def test_the_main_content_of_a_page_is_its_paragraphs():
    assert text(ARTICLE) == (
        "Rivers\n\nThe river & its valley are long, and it has many fish.\n\n"
        "A second paragraph of prose follows the first one."
    )


@pytest.mark.parametrize(
    ("body", "charset", "found"),
    [
        (b"<p>\x93caf\xe9\x94", "latin1", "“café”"),
        (b"<p>\x93caf\xe9\x94", "ISO-8859-1", "“café”"),
        (b"<p>caf\xe9", "latin-1", "café"),
        ("<p>Größe".encode("cp037"), "cp037", "Größe"),
        ("<p>日本".encode("euc-jp"), "euc-jp", "日本"),
        ("<meta charset=euc-jp><p>日本語の文".encode("euc-jp"), None, "日本語の文"),
        ("<meta charset=euc-jp><p>日本語の文".encode("euc-jp"), "no-such-charset", "日本語の文"),
        ("<meta charset=euc-jp><p>日本語の文".encode("euc-jp"), "rot13", "日本語の文"),
        ("<meta charset=euc-jp><p>日本語の文".encode("euc-jp"), "idna", "日本語の文"),
        ("<meta charset=euc-jp><p>日本語の文".encode("euc-jp"), "unicode_escape", "日本語の文"),
        ("<p>Größe und mehr".encode("mac-roman"), "mac-roman", "Größe und mehr"),
        ("<p>Größe und mehr".encode(), None, "Größe und mehr"),
        ("<p>日本".encode("utf-16"), "utf-16", "日本"),
    ],
)
def test_the_charset_is_the_headers_else_the_pages_else_detected(body, charset, found):
    assert text(body, charset=charset).lstrip("\ufeff") == found


@pytest.mark.parametrize(
    ("body", "charset", "found"),
    [
        (
            "<p>Größe, Straßen, naïve Schöne, ä".encode(),
            "iso-8859-1",
            "Größe, Straßen, naïve Schöne, ä",
        ),
        ("<meta charset=shift_jis><p>日本語の文章".encode("shift_jis"), "utf-8", "日本語の文章"),
        ("<p>日本語の文章".encode() + b"\xff", "utf-8", "日本語の文章\ufffd"),  # one wrong byte
        ("<p>Ã¤".encode("latin-1"), "iso-8859-1", "Ã¤"),  # too few to tell
    ],
)
def test_a_header_is_not_believed_against_the_bytes(body, charset, found):
    assert text(body, charset=charset).rstrip("\ufffd") == found.rstrip("\ufffd")


@pytest.mark.parametrize("charset", ["punycode", "idna"])
def test_a_codec_that_takes_the_square_of_the_length_is_no_charset(charset):
    """It would take an hour."""
    body = b"xn--" + b"ab9c" * 2_500_000
    assert text(body, "text/plain", charset) == body.decode()


@pytest.mark.parametrize(
    ("body", "charset", "shows"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(99), None, "a file of PNG"),
        (b"%PDF-1.4\n%\xe2\xe3\n1 0 obj", "utf-8", "a file of PDF"),
        (b"\x1f\x8b\x08 and so on", None, "a file of gzip"),
        (
            bytes(range(256)),
            "utf-8",
            "26 of the first 256 bytes of the page are control characters",
        ),
        (b"text " * 10 + b"\0\0\0", None, "3 of the first 53 bytes"),
        (b"text " * 10 + b"\0\0", None, None),
        (b"\x1b[1mN\bNA\bAM\bME\bE\x1b[0m\f", None, None),  # as terminals print it
        (b" <p>" + bytes(40) + b"text", None, None),
        ("text".encode("utf-16"), None, None),
        ("text".encode("utf-16-le"), "UTF-16LE", None),
    ],
)
def test_bytes_that_are_no_text_are_none_whatever_the_header_says(body, charset, shows):
    for kind in ("text/html", "text/plain"):
        if shows is None:
            assert text(body, kind, charset)
            continue
        with pytest.raises(PageError) as caught:
            text(body, kind, charset)
        assert caught.value.args[0] == "not_text"
        assert shows in caught.value.args[1]


def test_plain_text_stays_as_it_is():
    assert text("<p> é  x\n", "text/plain") == "<p> é  x\n"


@pytest.mark.parametrize("body", ["", "<p> <p>", '<nav><a href="/">Home</a></nav>', "<script>1"])
def test_a_page_without_content_is_empty(body):
    with pytest.raises(PageError) as caught:
        text(body)
    assert caught.value.args[0] == "empty_text"


@pytest.mark.parametrize("body", [b"<p>a\x00\xd8b", b"<p>a&#xD800;b"])
def test_lone_surrogates_are_no_error(body):
    charset = "utf-16-le" if b"\0" in body else "utf-8"
    with suppress(PageError):
        text(body, charset=charset).encode()


def test_a_page_of_absurd_depth_gives_all_its_text():
    nested = "<div>" * 20 * DEEPEST + "deep" + "</div>" * 20 * DEEPEST
    assert text(f"<nav>Home</nav>{nested}").split() == ["Home", "deep"]


def test_many_paragraphs_are_not_depth():
    body = ARTICLE.replace("<p>A second", "<p>x" * 2 * DEEPEST + "<p>A second")
    assert "Home" not in text(body)


@pytest.mark.parametrize(
    "body",
    [
        "<ul><li>x" * 16000,  # 256 MB when each was indented by its depth
        "<ul><li>x<!--</ul>-->" * 8000,  # end tags that are none
        "<OL title='</ol>'><li>x" * 8000,
        "<ul>" * 30 + "<li>x" * 50000,
        "<ol>" * 30 + "<pre>" + "y\n" * 50000,
    ],
)
def test_lists_do_not_make_a_page_many_times_as_large(body):
    assert len(text(body)) <= INDENTED * len(body)


@pytest.fixture
def extracted(monkeypatch):
    """What resiliparse's extraction is called with: page and whether for the main content."""
    calls = []

    def extract(page, *, main_content, alt_texts):
        calls.append((page, main_content))
        return "text"

    monkeypatch.setattr(
        import_module("resiliparse.extract.html2text"), "extract_plain_text", extract
    )
    return calls


def test_lists_that_are_no_deeper_than_layouts_need_stay_lists(extracted):
    body = ARTICLE.replace("</main>", "<ul><li>one<ol><li>two</ol></ul>" * 20 + "</main>")
    text(body)
    ((page, main_content),) = extracted
    assert main_content
    assert page.document.query_selector("ul ol") is not None


@pytest.mark.parametrize("between", ["</q>", "<p-x></p-x>", "<!--</div>-->", "<i a='</div>'></i>"])
def test_depth_is_that_of_the_tree_whatever_stands_between(between, extracted):
    """With the search for the main content, which takes the square of the depth, it took 22 s."""
    text(f"<div>{between}x " * 2 * DEEPEST)
    text(f"<div>{between}x</div> " * 2 * DEEPEST)
    assert [main_content for _, main_content in extracted] == [False, True]


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["<p>", "</div>", "<div>", "<", "é", "\0", "&#0;", "<!--", "x "])))
def test_any_page_is_utf8_text_or_empty(parts):
    with suppress(PageError):
        assert text("".join(parts)).encode().strip()


def test_without_resiliparse_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "resiliparse.extract.html2text", None)
    with pytest.raises(PlatformError, match=r"pip install 'assay-corpus\[web\]'"):
        text("<p>x")
    assert definition().startswith("main-content-v6 (resiliparse ")
