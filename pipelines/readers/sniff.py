"""What bytes are by their look, whatever their headers say."""

import codecs
import re

_MAGIC = {
    b"%PDF-": "PDF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\xff\xd8\xff": "JPEG",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b\x08": "gzip",
}
_HEAD_BYTES = 512
_BINARY = bytes({*range(0x20)} - {*b"\b\t\n\f\r\x1b"})
"""Bytes of no text (WHATWG MIME Sniffing, 3), but for the backspace, with which terminals print
bold and underlined.
"""
_BINARY_SHARE = 20
"""Compressed bytes are such bytes in one of ten; a page may have one by accident."""
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_WIDE = re.compile(r"(?:x-)?(?:utf[-_]?(?:16|32)|ucs|unicode|iso-10646|csunicode)", re.IGNORECASE)
_SHIFTED = re.compile(r"(?:x-)?(?:cs)?iso-?2022", re.IGNORECASE)
"""Character sets that shift out of and into ASCII (RFC 1557)."""
_SURE_BYTES = 16


def is_html(body: bytes) -> bool:
    """Tell whether bytes begin as HTML does."""
    return body[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def is_text(body: bytes) -> bool:
    """Tell whether bytes are surely a text: UTF-8, perhaps cut at the end, no byte of no text in
    the first of them, and enough of them that nothing compressed is both.
    """
    if len(body) < _SURE_BYTES or _binaries(body[:_HEAD_BYTES]):
        return False
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def binary(body: bytes, charset: str | None) -> str | None:
    """Say what shows that a page is no text; None where nothing does.

    Args:
        body: the page, undone of its codings.
        charset: what its header says.
    """
    for magic, name in _MAGIC.items():
        if body.startswith(magic):
            return f"the page is a file of {name}: it begins with {magic!r}"
    head = body[:_HEAD_BYTES]
    if is_html(head) or head.startswith(_BOMS) or _WIDE.match(charset or ""):
        return None
    if _SHIFTED.match(charset or ""):
        head = head.translate(None, b"\x0e\x0f")
    binaries = _binaries(head)
    if binaries * _BINARY_SHARE > len(head):
        return f"{binaries} of the first {len(head)} bytes of the page are control characters"
    return None


def _binaries(head: bytes) -> int:
    """Count bytes of no text."""
    return len(head) - len(head.translate(None, _BINARY))
