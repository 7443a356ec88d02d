"""The codings of HTTP bodies, undone: chunks, gzip, deflate, zstd and Brotli.

Crawlers differ: some store a body as it came, some decode it and leave the headers. So a coding is
undone only where the body looks as if it had it. A body that was cut short gives what it has (but
for zstd); one that is damaged inside is a row with a reason, never a part of a page without a word.
"""

import re
import zlib
from functools import cache
from importlib import import_module
from typing import Any

import zstandard

from pipelines.readers.sniff import is_html, is_text

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CUT_CHUNK = re.compile(rb"[0-9A-Fa-f]{0,8}[ \t]*(?:;[^\r\n]*)?\r?")
_TRAILERS = re.compile(rb"(?:[\w-]+:[^\n]*\n)*\s*")
_LINE_END = re.compile(rb"\r?\n")
_GZIP = b"\x1f\x8b"
_NO_CODING = re.compile(
    r"(?:|identity|none|null|binary|[78]bit|text(?:/.*)?|(?:utf|ucs)-?\d.*|us-ascii|ascii"
    r"|iso-?(?:8859|2022)-.*|latin-?\d|windows-.*|cp-?\d+|koi8-.*|euc-.*|gbk?|gb\d+|big5.*"
    r"|shift[-_]jis|tis-620)\Z"
)
"""What servers name where there is no coding: nothing, or a character set."""
_MOST_PIECE = 1 << 20


class PageError(Exception):
    """A response without a text; args are the reason and the detail of its ledger row."""


def dechunk(body: bytes, *, plain: bool) -> bytes:
    """Join the chunks (RFC 9112, 7.1) of a body; one that has none is returned as it is.

    A text may begin with a line of hexadecimal digits, as subtitles do. So the first chunk must be
    whole, or be cut by the end and be no plain text; and without CRs all must be, up to the last.

    Args:
        body: the body.
        plain: it is plain text once its chunks are joined.

    Raises:
        PageError: `bad_http` where the chunks break off in the middle.
    """
    parts: list[bytes] = []
    at = 0
    strict = True  # the line ends are those of the standard
    while chunk := _CHUNK.match(body, at):
        begin = chunk.end()
        end = begin + int(chunk.group(1), 16)
        strict = strict and chunk.group().endswith(b"\r\n")
        if begin == end:  # the last chunk
            return b"".join(parts) if parts or _TRAILERS.fullmatch(body, begin) else body
        if end > len(body) and not parts and plain:
            return body
        line_end = _LINE_END.match(body, end)
        if line_end is None and body[end : end + 2] not in {b"", b"\r"}:
            break
        parts.append(body[begin:end])
        at = line_end.end() if line_end else len(body)
    if not parts or not strict:
        return body
    if _CUT_CHUNK.fullmatch(body, at):
        return b"".join(parts)
    raise PageError(
        "bad_http",
        f"Transfer-Encoding 'chunked': {len(parts)} chunks end at byte {at} of {len(body)}, where"
        f" no whole chunk begins: {body[at : at + 40]!r}",
    )


def decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Undo one coding of a body, where it has it.

    Args:
        body: the body.
        coding: its name in lower case. What is none, such as `none` or `utf-8`, changes nothing.
        max_bytes: most bytes that may come out.

    Raises:
        PageError: `bad_http` where it cannot be undone, `record_too_large`.
    """
    if _NO_CODING.match(coding):
        return body
    if coding in {"gzip", "x-gzip"}:
        return _gunzip(body, coding, max_bytes)
    if coding == "zstd":
        return _decompress_zstd(body, max_bytes)
    known = coding in {"br", "deflate"}
    if is_text(body) or (is_html(body) and not known):
        return body  # the crawler has done it; these have no first bytes to know them by
    if not known:
        raise PageError("bad_http", f"Content-Encoding {coding[:40]!r} is not supported")
    undo = _decompress_brotli if coding == "br" else _inflate
    return undo(body, max_bytes)


def _gunzip(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Undo gzip, of one member or more (RFC 1952, 2.2); what follows the last is left out."""
    if not body.startswith(_GZIP):
        return body  # the crawler has done it
    parts: list[bytes] = []
    room = max_bytes + 1
    at = 0
    while room and body.startswith(_GZIP, at):
        member = zlib.decompressobj(wbits=31)
        size = 1 << 10  # small at first: zlib copies what is left of a piece behind a member
        while room and not member.eof and (piece := body[at : at + size]):
            try:
                parts.append(member.decompress(piece, room))
            except zlib.error as error:
                detail = f"Content-Encoding {coding!r}: {error}, behind byte {at} of {len(body)}"
                raise PageError("bad_http", detail) from None
            room -= len(parts[-1])
            at += len(piece) - len(member.unused_data)
            size = min(8 * size, _MOST_PIECE)
    return _checked(b"".join(parts), max_bytes)


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """Undo deflate, with zlib's head or without. HTML that does not decode is as it was."""
    wrapped = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    member = zlib.decompressobj(wbits=15 if wrapped else -15)
    try:
        text = member.decompress(body, max_bytes + 1)
    except zlib.error as error:
        if is_html(body):
            return body
        raise PageError("bad_http", f"Content-Encoding 'deflate': {error}") from None
    return _checked(text, max_bytes) if text or not is_html(body) else body


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
    member, text, fault = module.Decompressor(), b"", "cut off before its first byte of text"
    whole = not body
    try:
        text = member.process(body, output_buffer_limit=max_bytes + 1)
        whole = whole or member.is_finished()
    except module.error as error:
        fault = str(error)
    if is_html(body) and not text:
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
