"""WARC and WET files (ISO 28500): one document a page, with its URL and record id.

| record | becomes |
|---|---|
| `conversion` (what WET files hold), `resource` | its text, that of HTML as below |
| `response` to HTTP | the text of its page |
| `warcinfo`, `request`, `metadata`, `revisit`, … | nothing: they hold no document |

A response that is no text (an image, a redirect, DNS) is a row with a reason, as is everything that
cannot be read. Where bytes stand that are no record, reading goes on at the next line that begins
a record: real crawls have wrong lengths, missing line ends and members cut off. A length that goes
beyond the end of the file is such a place too: what stands behind the record's head is looked
through for the next record, in a second pass over the file where it was not kept, of which there
is at most one. A length that is wrong but ends inside the file hides the records that it covers.
"""

from collections.abc import Callable, Iterator

from pipelines.readers.http import TEXT, Page, PageError, content_type, parse_response
from pipelines.readers.rows import Record
from pipelines.readers.streams import Gap, Piece

ToText = Callable[[Page], str]
"""Makes the text of a page; raises `PageError` where there is none."""

_MAGIC = b"WARC/"
_MAX_LINE_BYTES = 64 << 10
_MAX_HEADERS = 1000
_DOCUMENTS = ("response", "conversion", "resource")
_UTF8 = (None, "utf-8", "utf8", "us-ascii")
_CRAWLERS_OWN = "metadata:"
"""Begins the URL of what wget stores about itself: its log and arguments."""

_Item = tuple[int, bytes, Record]


class _Cursor:
    """Lines and bytes of a stream of pieces, up to its end or to a gap, whichever is first."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self._begin = 0
        self.gap: Gap | None = None
        self.end: int | None = None
        """Where the stream ends, or the next gap stands, once that was seen."""

    @property
    def position(self) -> int:
        """Decompressed byte of the next byte."""
        return self._begin + self._at

    def _more(self) -> bool:
        """Read a piece; False at the end and at a gap, which stays there until `resume`."""
        if self.gap is not None:
            return False
        piece = next(self._pieces, None)
        if piece is None or isinstance(piece, Gap):
            self.gap = piece
            self.end = self._begin + len(self._buffer)
            return False
        self._begin += self._at
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return True

    def resume(self) -> bool:
        """Go on behind the gap; False where the stream ended there."""
        gap, self.gap, self.end = self.gap, None, None
        if gap is None or gap.resume is None:
            return False
        self._buffer, self._at, self._begin = b"", 0, gap.resume
        return True

    def line(self) -> bytes | None:
        """Return the next line with its end, at most `_MAX_LINE_BYTES` of it; None at the end."""
        while True:
            end = self._buffer.find(b"\n", self._at, self._at + _MAX_LINE_BYTES) + 1
            length = (end or len(self._buffer)) - self._at
            if end or length >= _MAX_LINE_BYTES or not self._more():
                break
        length = min(length, _MAX_LINE_BYTES)
        line = self._buffer[self._at : self._at + length]
        self._at += length
        return line or None

    def take(self, size: int, *, keep: bool) -> bytes | None:
        """Return the next `size` bytes (empty if not to be kept), None if there are fewer.

        In the latter case what was kept is read again, and what was not is lost.
        """
        parts = []
        while size:
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            if keep:
                parts.append(part)
            if size and not self._more():
                if keep:
                    self._begin = self.position - sum(map(len, parts))
                    self._buffer, self._at = b"".join(parts), 0
                return None
        return b"".join(parts)

    def again(self, pieces: Iterator[Piece], position: int) -> None:
        """Read on from `position`, in the pieces of the same stream from its first byte on."""
        self._pieces, self.gap = pieces, None
        self._buffer, self._at, self._begin = b"", 0, 0
        end = self.end
        while self.take(position - self.position, keep=False) is None and self.resume():
            pass
        self.end = end


def warc_records(
    open_pieces: Callable[[], Iterator[Piece]], max_bytes: int, to_text: ToText
) -> Iterator[_Item]:
    """Yield the documents of a WARC stream, and a row with a reason for what is none.

    Args:
        open_pieces: opens the whole stream, from its first byte on. Called a second time where a
            record's length goes beyond the end.
        max_bytes: larger records, pages that decompress to more and larger texts are
            `record_too_large`.
        to_text: makes the text of an HTTP response's page.

    Positions are those of the records' first bytes in the decompressed file. The text of a record
    is bytes of UTF-8.
    """
    cursor = _Cursor(open_pieces())
    lost = False  # a row was yielded for what is being skipped
    while True:
        start = cursor.position
        line = cursor.line()
        if line is None:
            if cursor.gap is None:
                return
            if not lost:
                yield start, b"", Record(None, None, None, b"", *cursor.gap[:2])
            lost = cursor.resume()
            if not lost:
                return
        elif line.startswith(_MAGIC):
            lost = False
            item = _record(cursor, start, max_bytes, to_text, open_pieces)
            if item is not None:
                yield item
                lost = item[2].error in _LOST
        elif line.strip() and not lost:
            lost = True
            detail = f"no record begins at byte {start}: {line[:60]!r}"
            yield start, b"", Record(None, None, None, b"", "corrupt_warc", detail)


_LOST = {"corrupt_warc", "truncated_warc", "truncated_gzip", "corrupt_gzip"} | {
    "truncated_zstd",
    "corrupt_zstd",
}


def _record(  # noqa: PLR0911 - one return for each way to be no document
    cursor: _Cursor,
    start: int,
    max_bytes: int,
    to_text: ToText,
    open_pieces: Callable[[], Iterator[Piece]],
) -> _Item | None:
    """Read the record whose first line was read; None if it holds no document."""
    headers, complete = _headers(cursor)
    kind = headers.get("warc-type", "").lower()
    url = headers.get("warc-target-uri", "").strip("<>") or None
    id_ = headers.get("warc-record-id", "").strip("<>") or None

    def bad(reason: str, detail: str) -> _Item:
        return start, b"", Record(id_, None, url, b"", reason, detail)

    end, where = cursor.gap[:2] if cursor.gap else ("truncated_warc", "the file ends")
    if not complete:
        return bad(end, f"{where}, in the head of a record")
    stated = headers.get("content-length", "")
    if not (stated.isascii() and stated.isdigit() and len(stated) < 19):
        return bad("corrupt_warc", f"Content-Length is {stated[:40]!r}")
    size = int(stated)
    is_document = kind in _DOCUMENTS and not (url or "").startswith(_CRAWLERS_OWN)
    media, charset = content_type(headers.get("content-type", "text/plain"))
    is_text = kind == "response" or media in TEXT
    wanted = is_document and is_text and size <= max_bytes
    behind = cursor.position
    lies = cursor.end is not None and behind + size > cursor.end
    body = None if lies else cursor.take(size, keep=wanted)
    if body is None:
        end, where = cursor.gap[:2] if cursor.gap else ("truncated_warc", "the file ends")
        left = (cursor.end or behind) - behind
        if cursor.position > behind and (cursor.gap is None or cursor.gap.resume is None):
            cursor.again(open_pieces(), behind)
        return bad(end, f"{where}, in a record of {size} bytes of which there are {left}")
    if not is_document:
        return None
    if not is_text:
        return bad("not_text", f"Content-Type is {media[:80]!r}")
    if not wanted:
        return bad("record_too_large", f"the record has {size} bytes, more than {max_bytes}")
    if kind != "response" and media == "text/plain" and charset in _UTF8:
        return start, body, Record(id_, None, url, body)
    try:
        is_page = kind == "response"
        page = parse_response(body, max_bytes) if is_page else Page(body, media, charset)
        text = to_text(page).encode()
    except PageError as error:
        return bad(*error.args)
    if len(text) > max_bytes:
        detail = f"the text of the page has {len(text)} bytes, more than {max_bytes}"
        return bad("record_too_large", detail)
    return start, text, Record(id_, None, url, text)


def _headers(cursor: _Cursor) -> tuple[dict[str, str], bool]:
    """Read header lines up to the blank line; return them and whether they had an end.

    A name that comes twice keeps its first value.
    """
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = cursor.line()
        if line is None:
            return headers, False
        if not line.strip():
            break
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers, True
