"""WARC and WET files (ISO 28500): one document a page, with its URL and record id.

| record | becomes |
|---|---|
| `conversion` (what WET files hold), `resource` | its text, that of HTML as below |
| `response` to HTTP | the text of its page |
| `warcinfo`, `request`, `metadata`, `revisit`, … | nothing: they hold no document |

A response that is no text (an image, a redirect, DNS) is a row with a reason, as is everything that
cannot be read. Where bytes stand that are no record, reading goes on at the next line that begins
a record: real crawls have wrong lengths, missing line ends and members cut off. A length that goes
beyond the end of the file is such a place too, and so is one behind which no record begins while a
line inside begins one: the record is a row, and reading goes on behind its head, or at that line,
so that it hides no other. Where content goes on behind its length, the record is a row too, and no
page that was cut in the middle. Where the stream is damaged a row says so, whatever rows are before
it: it goes on at the next gzip member or zstd frame that can be found, or nothing behind is read.
A record that its crawler cut (`WARC-Truncated`) or of which a first segment is there
(`WARC-Segment-Number`) is a document as it stands. Content of up to `max_bytes` is held in memory
until that is known; larger, it goes by, and where its length was wrong the file is read a second
time (`cursor.py`).
"""

from collections.abc import Callable, Iterator

from pipelines.readers.codings import PageError
from pipelines.readers.cursor import Cursor
from pipelines.readers.http import TEXT, Page, content_type, parse_response
from pipelines.readers.jsonl import BOM
from pipelines.readers.rows import Record
from pipelines.readers.streams import Gap, Piece

ToText = Callable[[Page], str]
"""Makes the text of a page; raises `PageError` where there is none."""

RECORD_MAGIC = b"WARC/"
"""Begins every record."""
_MAX_HEADERS = 1000
_DOCUMENTS = ("response", "conversion", "resource")
_UTF8 = (None, "utf-8", "utf8", "us-ascii")
_CRAWLERS_OWN = "metadata:"
"""Begins the URL of what wget stores about itself: its log and arguments."""

_Item = tuple[int, bytes, Record]


def warc_records(
    open_pieces: Callable[[], Iterator[Piece]], max_bytes: int, to_text: ToText
) -> Iterator[_Item]:
    """Yield the documents of a WARC stream, and a row with a reason for what is none.

    Args:
        open_pieces: opens the whole stream, from its first byte on. Called a second time where a
            record's length is wrong and its content was not held.
        max_bytes: larger records, pages that decompress to more and larger texts are
            `record_too_large`.
        to_text: makes the text of an HTTP response's page.

    Positions are those of the records' first bytes in the decompressed file. The text of a record
    is bytes of UTF-8.
    """
    cursor = Cursor(open_pieces)
    lost = False  # a row was yielded for what is being skipped
    told: Gap | None = None  # the gap that a row was yielded for
    while True:
        start = cursor.position
        line = cursor.line()
        if line is not None and start == 0:
            line = line.removeprefix(BOM)
        if line is None:
            if cursor.gap is None:
                return
            if cursor.gap != told:
                # Never at the next record's place: a checksum fails where its content has ended.
                place = start - (start > 0 and start == cursor.gap.resume)
                yield place, b"", Record(None, None, None, b"", *_end(cursor))
            lost = cursor.resume()
            if not lost:
                return
        elif line.startswith(RECORD_MAGIC):
            lost = False
            item = _record(cursor, start, max_bytes, to_text)
            if item is not None:
                yield item
                lost = item[2].error in _LOST
                if cursor.gap is not None and item[2].error == cursor.gap.reason:
                    told = cursor.gap
        elif line.strip() and not lost:
            lost = True
            detail = f"no record begins at byte {start}: {line[:60]!r}"
            yield start, b"", Record(None, None, None, b"", "corrupt_warc", detail)


_LOST = {"corrupt_warc", "truncated_warc", "truncated_gzip", "corrupt_gzip"} | {
    "truncated_zstd",
    "corrupt_zstd",
}


def _end(cursor: Cursor) -> tuple[str, str]:
    """Say why the stream ends where it does, and what becomes of what is behind."""
    if cursor.gap is None:
        return "truncated_warc", "the file ends"
    reason, detail, resume = cursor.gap
    if resume is None and reason.startswith("corrupt"):
        detail += "; nothing behind it can be read"
    return reason, detail


def _record(  # noqa: PLR0911 - one return for each way to be no document
    cursor: Cursor, start: int, max_bytes: int, to_text: ToText
) -> _Item | None:
    """Read the record whose first line was read; None if it holds no document."""
    headers, complete = _headers(cursor)
    kind = headers.get("warc-type", "").lower()
    url = headers.get("warc-target-uri", "").strip("<>") or None
    id_ = headers.get("warc-record-id", "").strip("<>") or None

    def bad(reason: str, detail: str) -> _Item:
        return start, b"", Record(id_, None, url, b"", reason, detail)

    end, where = _end(cursor)
    if not complete:
        return bad(end, f"{where}, in the head of a record")
    stated = headers.get("content-length", "")
    if not (stated.isascii() and stated.isdigit() and len(stated) < 19):
        return bad("corrupt_warc", f"Content-Length is {stated[:40]!r}")
    size = int(stated)
    is_document = kind in _DOCUMENTS and not (url or "").startswith(_CRAWLERS_OWN)
    media, charset = content_type(headers.get("content-type", "text/plain"))
    is_text = kind == "response" or media in TEXT
    held = size <= max_bytes
    behind = cursor.position
    beyond = cursor.end is not None and behind + size > cursor.end
    inside = None if beyond else cursor.wrong(size, held=held)
    if cursor.end is not None and behind + size > cursor.end:
        end, where = _end(cursor)
        left = cursor.end - behind
        if cursor.position > behind and (cursor.gap is None or cursor.gap.resume is None):
            cursor.back(behind)
        return bad(end, f"{where}, in a record of {size} bytes of which there are {left}")
    fault = _wrong_length(cursor, size, inside, is_text=held and is_document and is_text)
    if fault is not None:
        return bad("corrupt_warc", fault)
    if held and not (is_document and is_text):
        cursor.drop(size)
    if not is_document:
        return None
    if not is_text:
        return bad("not_text", f"Content-Type is {media[:80]!r}")
    if not held:
        return bad("record_too_large", f"the record has {size} bytes, more than {max_bytes}")
    body = cursor.read(size)
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


def _wrong_length(cursor: Cursor, size: int, inside: int | None, *, is_text: bool) -> str | None:
    """Say why a record's length is wrong and go on behind what it covers; None if it is right.

    Args:
        cursor: at the record's content.
        size: the length.
        inside: where in the content another record begins, if that shows that it is wrong.
        is_text: the content is held and will be a document, which must not be cut in the middle.
    """
    begin, end = cursor.position, cursor.position + size
    if inside is not None:
        cursor.drop(inside - begin)
        return (
            f"Content-Length is {size}, but behind so many bytes, at {end}, no record begins, and"
            f" one does at byte {inside}: {inside - begin} bytes are left out and reading goes on"
            " there"
        )
    if is_text and not cursor.ends(size):
        cursor.drop(size)
        return (
            f"Content-Length is {size}, but behind so many bytes, at {end}, neither a blank line"
            " nor a record follows: the record is left out, and reading goes on at the next"
        )
    return None


def _headers(cursor: Cursor) -> tuple[dict[str, str], bool]:
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
