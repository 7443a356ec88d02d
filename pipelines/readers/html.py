"""The text of web pages: character set, then the main content of HTML, both by resiliparse.

Resiliparse (Bevendorff et al. 2018) is the extra `web`: `pip install assay-corpus[web]`. It is
loaded with the first page, so WET files do without it. Its version is part of what decides a text.

Some of its costs have no bound of their own, so pages get one (`bounds.py`).
"""

import codecs
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines.readers.bounds import bounded
from pipelines.readers.codings import PageError, brotli
from pipelines.readers.http import Page
from pipelines.readers.sniff import binary
from shards.errors import PlatformError

SURELY_UTF8 = 6
"""So many characters that are not ASCII, in bytes that are all UTF-8, are no chance."""

WRONG = 4
"""A header that says UTF-8 is not believed where more than one in four such characters is none."""

_NOT_ASCII = re.compile(r"[^\0-\x7f]+")

_PYTHONS = re.compile(
    r"(?:ascii|big5|cp\d|euc_|gb|hp-roman8|hz|iso2022_|iso8859|johab|koi8|kz1048|mac-|ptcp154|shift_"
    r"|tis-620|utf-(?:8|16|32))"
)
"""Codecs of Python that are character sets. Others decode in the square of the length (punycode,
idna: an hour for 10 MB), undo escapes, or belong to one machine.
"""


def page_text(page: Page) -> str:
    """Return the main content of an HTML page as plain text with its paragraphs, or plain text.

    The character set is UTF-8 where the bytes can be nothing else, else the header's, else the one
    that the page's `meta` element names, else what its bytes look like; the browsers' names and
    meanings hold (WHATWG: latin1 is windows-1252), then Python's (`_PYTHONS`). Servers often name
    one for all their files, so a header is not believed against the bytes (`SURELY_UTF8`, `WRONG`).

    Raises:
        PageError: `empty_text`, where nothing is left; `not_text`, where the bytes are no text.
        PlatformError: resiliparse is not installed.
    """
    try:
        html2text = import_module("resiliparse.extract.html2text")
        encoding = import_module("resiliparse.parse.encoding")
        html = import_module("resiliparse.parse.html")
    except ImportError as error:
        raise PlatformError(
            f"web pages need resiliparse, which cannot be imported ({error}):"
            " pip install 'assay-corpus[web]'"
        ) from None
    fault = binary(page.body, page.charset)
    if fault is not None:
        raise PageError("not_text", fault)
    text = _decode(page, encoding)
    if page.kind != "text/plain":
        tame, shallow = bounded(text, html.HTMLTree.parse)
        text = html2text.extract_plain_text(tame, main_content=shallow, alt_texts=False)
    if not text.strip():
        raise PageError("empty_text", "the page has no main content")
    return _without_surrogates(text)


def definition() -> str:
    """Name the definition of pages' texts: with another resiliparse, a page has another text, and
    without brotli some have none.
    """
    try:
        found = version("resiliparse")
    except PackageNotFoundError:
        found = "not installed"
    return f"main-content-v6 (resiliparse {found}, {'with' if brotli() else 'without'} brotli)"


def _decode(page: Page, encoding: Any) -> str:
    """Decode a page's body; `encoding` is resiliparse's module."""
    is_utf8, multibyte = _utf8(page.body)
    if is_utf8 and multibyte >= SURELY_UTF8:
        return page.body.decode().removeprefix("\ufeff")
    if page.charset:
        try:
            browsers = encoding.map_encoding_to_html5(page.charset, fallback_utf8=False)
            name = browsers or _pythons(page.charset)
            says_utf8 = codecs.lookup(name).name == "utf-8"
            text = _without_surrogates(encoding.bytes_to_str(page.body, name))
        except (LookupError, ValueError):  # no codec, or one that is not from bytes to text
            pass
        else:
            if not says_utf8 or is_utf8 or _is_mostly_utf8(page.body):
                return text
    name = encoding.detect_encoding(page.body, from_html_meta=page.kind != "text/plain")
    return _without_surrogates(encoding.bytes_to_str(page.body, name))


def _pythons(charset: str) -> str:
    """Return the name of one of Python's character sets; `LookupError` where it is none."""
    name = codecs.lookup(charset).name
    if not _PYTHONS.match(name):
        raise LookupError(name)
    return name


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
