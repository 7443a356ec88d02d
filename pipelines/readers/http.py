"""HTTP responses as they stand in WARC files: status, headers, and the body undone of its codings.

Crawlers differ: some store a body as it came, some decode it and leave the headers. So a coding is
undone only where the body looks as if it had it.
"""

import codecs
import re
import zlib
from email.message import Message
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import zstandard

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
TEXT = ("text/html", "application/xhtml+xml", "text/plain")
"""Media types that hold a text."""
_MOST_CODINGS = 4


class Page(NamedTuple):
    """The body of a response: `kind` is its media type, `charset` what the header says or None."""

    body: bytes
    kind: str
    charset: str | None


class PageError(Exception):
    """A response without a text; args are the reason and the detail of its ledger row."""


def parse_response(raw: bytes, max_bytes: int) -> Page:
    """Return the page of a stored HTTP response.

    Args:
        raw: status line, headers and body.
        max_bytes: most bytes of a body that is decompressed.

    Raises:
        PageError: `http_status` where it is not 200, `not_text` where it is no HTML or plain text,
            `bad_http` where it cannot be parsed, `record_too_large` where it decompresses to more
            than `max_bytes`.
    """
    if not raw.startswith(b"HTTP/"):
        raise PageError("not_text", f"not an HTTP response: {raw[:40]!r}")
    end = _HEAD_END.search(raw)
    head, body = (raw[: end.start()], raw[end.end() :]) if end else (raw, b"")
    status, *lines = head.decode("latin-1").splitlines()
    code = status.split()[1:2]
    if code != ["200"]:
        raise PageError("http_status", f"the response is {status[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    kind, charset = content_type(headers.get("content-type", ""))
    if kind not in TEXT:
        raise PageError("not_text", f"Content-Type is {kind[:80]!r}")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _dechunk(body)
    codings = headers.get("content-encoding", "").lower().split(",")
    if len(codings) > _MOST_CODINGS:  # each may take max_bytes and its time
        raise PageError("bad_http", f"Content-Encoding names {len(codings)} codings")
    for coding in reversed(codings):
        body = _decompress(body, coding.strip(), max_bytes)
    return Page(body, kind, charset)


def content_type(value: str) -> tuple[str, str | None]:
    """Return media type, HTML where none is stated, and character set."""
    if not value:
        return "text/html", None
    message = Message()
    message["Content-Type"] = re.sub(r"[\r\n]", " ", value)
    return value.partition(";")[0].strip().lower(), message.get_content_charset()


def _dechunk(body: bytes) -> bytes:
    """Join the chunks (RFC 9112, 7.1) of a body; one that has none is returned as it is."""
    parts = []
    at = 0
    while chunk := _CHUNK.match(body, at):
        size = int(chunk.group(1), 16)
        if size == 0:
            break
        parts.append(body[chunk.end() : chunk.end() + size])
        at = chunk.end() + size
        at += 2 if body[at : at + 2] == b"\r\n" else 1
    return b"".join(parts) if parts else body


def _decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Undo gzip, deflate, Brotli or zstd; but for zstd, a body cut short gives what it has."""
    if coding in {"", "identity"}:
        return body
    if coding in {"gzip", "x-gzip"}:
        if not body.startswith(b"\x1f\x8b"):
            return body  # the crawler has done it
        member = zlib.decompressobj(wbits=31)
    elif coding == "zstd":
        return _decompress_zstd(body, max_bytes)
    elif coding == "br":
        return _decompress_brotli(body, max_bytes)
    elif coding == "deflate":
        wrapped = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        member = zlib.decompressobj(wbits=15 if wrapped else -15)
    else:
        raise PageError("bad_http", f"Content-Encoding {coding[:40]!r} is not supported")
    try:
        text = member.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise PageError("bad_http", f"Content-Encoding {coding!r}: {error}") from None
    return _checked(text, max_bytes)


def _decompress_zstd(body: bytes, max_bytes: int) -> bytes:
    """Undo zstd (RFC 8878; windows of 8 MiB at most, RFC 9659)."""
    if not body.startswith(b"\x28\xb5\x2f\xfd"):
        return body  # the crawler has done it
    decompressor = zstandard.ZstdDecompressor(max_window_size=8 << 20)
    try:
        with decompressor.stream_reader(body, read_across_frames=True) as reader:
            return _checked(reader.read(max_bytes + 1), max_bytes)
    except zstandard.ZstdError as error:
        raise PageError("bad_http", f"Content-Encoding 'zstd': {error}") from None


def _decompress_brotli(body: bytes, max_bytes: int) -> bytes:
    """Undo Brotli (RFC 7932), which has no first bytes to know it by: a body that begins as HTML
    does, and does not decode or only to nothing, is one that the crawler has decoded.
    """
    module = brotli()
    if module is None:
        raise PageError(
            "bad_http",
            "Content-Encoding 'br' needs the module brotli, 1.2 or later, which the extra web"
            " brings: pip install 'assay-corpus[web]'",
        )
    is_html = body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    member, text, fault = module.Decompressor(), b"", "cut off before its first byte of text"
    whole = not body
    try:
        text = member.process(body, output_buffer_limit=max_bytes + 1)
        whole = whole or member.is_finished()
    except module.error as error:
        fault = str(error)
    if is_html and not text:
        return body
    if text or whole:
        return _checked(text, max_bytes)
    raise PageError("bad_http", f"Content-Encoding 'br': {fault}")


@cache
def brotli() -> Any:
    """Return the module brotli, None where there is none that can bound its output (1.2)."""
    try:
        module = import_module("brotli")
    except ImportError:
        return None
    return module if hasattr(module.Decompressor, "can_accept_more_data") else None


def _checked(text: bytes, max_bytes: int) -> bytes:
    if len(text) > max_bytes:
        raise PageError("record_too_large", f"the page decompresses to more than {max_bytes} bytes")
    return text
