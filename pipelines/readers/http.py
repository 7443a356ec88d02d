"""HTTP responses as they stand in WARC files: status, headers, and the body without its codings."""

import re
from typing import NamedTuple

from pipelines.readers.codings import PageError, dechunk, decompress

_HEAD_END = re.compile(rb"\r?\n\r?\n")
TEXT = ("text/html", "application/xhtml+xml", "text/plain")
"""Media types that hold a text."""
_MOST_CODINGS = 4
_TRANSFER_CODINGS = ("gzip", "x-gzip", "deflate")
_LISTS = ("content-encoding", "transfer-encoding")
_CHARSET = re.compile(
    r""";\s*charset\s*=\s*(?:"(?P<quoted>[^"]*)|'(?P<single>[^']*)|(?P<bare>[^\s;"]*))""",
    re.IGNORECASE,
)
_MOST_CHARSET = 64
_KIND_END = re.compile(r"[\s;,\"]")
"""Servers also write `text/html charset=utf-8`, `text/html, text/html` and `"text/html"`."""
_AROUND_KIND = ' \t"'


class Page(NamedTuple):
    """The body of a response: `kind` is its media type, `charset` what the header says or None."""

    body: bytes
    kind: str
    charset: str | None


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
    headers = _headers(lines)
    kind, charset = content_type(headers.get("content-type", ""))
    if kind not in TEXT:
        raise PageError("not_text", f"Content-Type is {kind[:80]!r}")
    content, transfer = (headers[name].lower() for name in _LISTS)
    codings = [coding for coding in _words(content) if coding]
    codings += [coding for coding in _words(transfer) if coding in _TRANSFER_CODINGS]
    if len(codings) > _MOST_CODINGS:  # each may take max_bytes and its time
        raise PageError("bad_http", f"Content-Encoding names {len(codings)} codings")
    if "chunked" in transfer:
        body = dechunk(body, plain=kind == "text/plain" and not codings)
    for coding in reversed(codings):
        body = decompress(body, coding, max_bytes)
    return Page(body, kind, charset)


def _headers(lines: list[str]) -> dict[str, str]:
    """Return header fields by lower-case name: the first of each, lists joined (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if name in lists:
            lists[name].append(value.strip())
        elif colon:
            headers.setdefault(name, value.strip())
    return headers | {name: ",".join(values) for name, values in lists.items()}


def _words(value: str) -> list[str]:
    """Return the parts of a header field that is a list."""
    return [word.strip() for word in value.split(",")]


def content_type(value: str) -> tuple[str, str | None]:
    """Return media type, HTML where none is stated, and character set.

    Any bytes may stand there, in any number, so no parser of e-mail reads them: some raise, and
    take the square of the length.
    """
    if not value.strip():
        return "text/html", None
    kind = _KIND_END.split(value.strip(_AROUND_KIND), maxsplit=1)[0].lower()
    match = _CHARSET.search(value)
    charset = match.group(match.lastgroup or 0).strip().lower() if match else ""
    known = charset.isascii() and charset.isprintable() and len(charset) <= _MOST_CHARSET
    return kind, charset if charset and known else None
