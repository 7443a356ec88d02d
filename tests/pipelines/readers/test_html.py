"""The call of resiliparse, with stand-ins for its modules: tests do not need the extra `web`."""

import sys
from types import SimpleNamespace

import pytest

from pipelines.readers.html import definition, page_text
from pipelines.readers.http import Page, PageError
from shards.errors import PlatformError


@pytest.fixture
def resiliparse(monkeypatch):
    def extract(html, **options):
        assert options == {"main_content": True, "alt_texts": False}
        return html.replace("<p>", "")

    modules = {
        "resiliparse.extract.html2text": SimpleNamespace(extract_plain_text=extract),
        "resiliparse.parse.encoding": SimpleNamespace(
            map_encoding_to_html5=lambda name: {"latin-1": "cp1252"}.get(name, name),
            detect_encoding=lambda data, from_html_meta: "euc-jp" if from_html_meta else "utf-8",
            bytes_to_str=lambda data, name: data.decode(name),
        ),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("resiliparse", "resiliparse.extract", "resiliparse.parse"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))


@pytest.mark.usefixtures("resiliparse")
@pytest.mark.parametrize(
    ("page", "text"),
    [
        (Page(b"<p>\x93caf\xe9\x94", "text/html", "latin-1"), "“café”"),
        (Page("<p>日本".encode("euc-jp"), "text/html", None), "日本"),
        (Page("<p>日本".encode("euc-jp"), "text/html", "no-such-charset"), "日本"),
        (Page("<p> é".encode(), "text/plain", None), "<p> é"),
    ],
)
def test_the_charset_is_the_headers_else_detected(page, text):
    assert page_text(page) == text


@pytest.mark.usefixtures("resiliparse")
def test_a_page_without_content_is_empty():
    with pytest.raises(PageError) as caught:
        page_text(Page(b"<p> <p>", "text/html", "utf-8"))
    assert caught.value.args[0] == "empty_text"


def test_without_resiliparse_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "resiliparse", None)
    with pytest.raises(PlatformError, match=r"pip install 'assay-corpus\[web\]'"):
        page_text(Page(b"<p>x", "text/html", None))
    assert definition().startswith("main-content-v1 (resiliparse ")
