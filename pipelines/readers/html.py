"""The text of web pages: character set, then the main content of HTML, both by resiliparse.

Resiliparse (Bevendorff et al. 2018) is the extra `web`: `pip install assay-corpus[web]`. It is
loaded with the first page, so WET files do without it. Its version is part of what decides a text.

Its search for the main content takes the square of a page's depth: 15 s for 20,000 nested elements.
Of a page that may be deeper than `DEEPEST`, which no layout needs, all of the text is taken.
"""

import codecs
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines.readers.http import Page, PageError
from shards.errors import PlatformError

DEEPEST = 1000

SURELY_UTF8 = 6
"""So many characters that are not ASCII, in bytes that are all UTF-8, are no chance."""

WRONG = 4
"""A header that says UTF-8 is not believed where more than one in four such characters is none."""

_NOT_ASCII = re.compile(r"[^\0-\x7f]+")

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
_FLAT = re.compile(
    r"area|base|br|col|d[dt]|embed|hr|img|input|li|link|meta|option|p|param|source|t[dhr]"
    r"|t(body|foot|head)|track|wbr",
    re.IGNORECASE,
)
"""Elements without content, and those that the next one of their kind ends."""


def page_text(page: Page) -> str:
    """Return the main content of an HTML page as plain text with its paragraphs, or plain text.

    The character set is UTF-8 where the bytes can be nothing else, else the header's, else the one
    that the page's `meta` element names, else what its bytes look like; the browsers' names and
    meanings hold (WHATWG: latin1 is windows-1252), then Python's. Servers often name one for all
    their files, so a header is not believed against the bytes (`SURELY_UTF8`, `WRONG`).

    Raises:
        PageError: `empty_text`, where nothing is left.
        PlatformError: resiliparse is not installed.
    """
    try:
        html2text = import_module("resiliparse.extract.html2text")
        encoding = import_module("resiliparse.parse.encoding")
    except ImportError as error:
        raise PlatformError(
            f"web pages need resiliparse, which cannot be imported ({error}):"
            " pip install 'assay-corpus[web]'"
        ) from None
    text = _decode(page, encoding)
    if page.kind != "text/plain":
        shallow = _depth(text) <= DEEPEST
        text = html2text.extract_plain_text(text, main_content=shallow, alt_texts=False)
    if not text.strip():
        raise PageError("empty_text", "the page has no main content")
    return _without_surrogates(text)


def definition() -> str:
    """Name the definition of `page_text`: with another resiliparse, a page has another text."""
    try:
        found = version("resiliparse")
    except PackageNotFoundError:
        found = "not installed"
    return f"main-content-v3 (resiliparse {found})"


def _decode(page: Page, encoding: Any) -> str:
    """Decode a page's body; `encoding` is resiliparse's module."""
    is_utf8, multibyte = _utf8(page.body)
    if is_utf8 and multibyte >= SURELY_UTF8:
        return page.body.decode().removeprefix("\ufeff")
    if page.charset:
        name = encoding.map_encoding_to_html5(page.charset, fallback_utf8=False) or page.charset
        try:
            says_utf8 = codecs.lookup(name).name == "utf-8"
            text = _without_surrogates(encoding.bytes_to_str(page.body, name))
        except (LookupError, ValueError):  # no codec, or one that is not from bytes to text
            pass
        else:
            if not says_utf8 or is_utf8 or _is_mostly_utf8(page.body):
                return text
    name = encoding.detect_encoding(page.body, from_html_meta=page.kind != "text/plain")
    return _without_surrogates(encoding.bytes_to_str(page.body, name))


def _utf8(body: bytes) -> tuple[bool, int]:
    """Tell whether bytes are UTF-8, and how many characters of them are not ASCII."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False, 0
    return True, 0 if text.isascii() else sum(map(len, _NOT_ASCII.findall(text)))


def _is_mostly_utf8(body: bytes) -> bool:
    """Tell whether at most one of `WRONG` characters that are not ASCII is no UTF-8."""
    text = body.decode(errors="replace")
    return text.count("\ufffd") * WRONG <= sum(map(len, _NOT_ASCII.findall(text)))


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which are no UTF-8, by question marks."""
    return text.encode(errors="replace").decode()


def _depth(text: str) -> int:
    """Return at least the depth of a page, roughly; the number of its tags where that is enough."""
    if text.count("<") <= DEEPEST:
        return 0
    depth = deepest = 0
    for closes, name in _TAG.findall(text):
        if not _FLAT.fullmatch(name):
            depth = max(depth - 1, 0) if closes else depth + 1
            deepest = max(deepest, depth)
    return deepest
