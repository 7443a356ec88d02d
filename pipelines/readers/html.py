"""The text of web pages: character set, then the main content of HTML, both by resiliparse.

Resiliparse (Bevendorff et al. 2018) is the extra `web`: `pip install assay-corpus[web]`. It is
loaded with the first page, so WET files do without it. Its version is part of what decides a text.
"""

import codecs
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from pipelines.readers.http import Page, PageError
from shards.errors import PlatformError


def page_text(page: Page) -> str:
    """Return the main content of an HTML page as plain text with its paragraphs, or plain text.

    The character set is the header's, else the one that the page's `meta` element names, else what
    its bytes look like; the browsers' names and meanings hold (WHATWG: latin-1 is windows-1252).

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
    charset = page.charset if page.charset and _is_known(page.charset) else None
    name = (
        encoding.map_encoding_to_html5(charset)
        if charset
        else encoding.detect_encoding(page.body, from_html_meta=page.kind != "text/plain")
    )
    text: str = encoding.bytes_to_str(page.body, name)
    if page.kind != "text/plain":
        text = html2text.extract_plain_text(text, main_content=True, alt_texts=False)
    if not text.strip():
        raise PageError("empty_text", "the page has no main content")
    return text.encode(errors="replace").decode()  # lone surrogates are no UTF-8


def definition() -> str:
    """Name the definition of `page_text`: with another resiliparse, a page has another text."""
    try:
        found = version("resiliparse")
    except PackageNotFoundError:
        found = "not installed"
    return f"main-content-v1 (resiliparse {found})"


def _is_known(charset: str) -> bool:
    try:
        codecs.lookup(charset)
    except (LookupError, ValueError):
        return False
    return True
