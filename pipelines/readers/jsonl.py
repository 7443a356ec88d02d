r"""JSON Lines: one object a line, of which only the fields that are needed are decoded.

The fast path checks the whole line but decodes only the id, source and URL; the text stays an
escaped slice of the line, and one kernel unescapes the texts of a batch in place: no Python
string is made for it. Whatever the fast path refuses is read again by the standard library's
parser, which decides: it gives the reason of a bad record, and lets pass what Python's own writer
makes (NaN in some other field, a float or a list as the id).
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from pipelines.readers.rows import Record, bad_record, bad_utf8_detail
from shards.errors import RecipeError

BOM = b"\xef\xbb\xbf"
"""UTF-8 byte order mark, allowed at the very start of a file."""

_SNIPPET_BYTES = 80
_NO_TEXT = msgspec.Raw(b"")


class Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of the JSON keys or Parquet columns that a document is made of.

    Only the text is required; a missing or null id, source or URL is null.
    """

    text_field: str = "text"
    id_field: str = "id"
    source_field: str = "source"
    url_field: str = "url"


def line_parser(fields: Fields) -> Callable[[int, bytes], Record | None]:
    """Make a function of (position, line) that returns a Record, or None for a blank line.

    Raises:
        RecipeError: the text field is also used for something else.
    """
    names = (fields.id_field, fields.source_field, fields.url_field)
    if fields.text_field in names:
        raise RecipeError(
            f"input.text_field = {fields.text_field!r}: also names the id, source or url"
        )
    # One key may serve twice (the URL as id), so attributes follow the distinct keys.
    keys = list(dict.fromkeys(names))
    attributes = [f"f{keys.index(name)}" for name in names]
    scalar = str | int | None
    line_type = msgspec.defstruct(
        "Line",
        [
            ("text", msgspec.Raw, _NO_TEXT),
            *((f"f{number}", scalar, None) for number in range(len(keys))),
        ],
        rename={"text": fields.text_field, **{f"f{n}": key for n, key in enumerate(keys)}},
        gc=False,
    )
    decode = msgspec.json.Decoder(line_type).decode
    id_, source, url = attributes

    def parse(position: int, line: bytes) -> Record | None:
        if position == 0 and line.startswith(BOM):
            position, line = len(BOM), line[len(BOM) :]
        try:
            value: Any = decode(line)
            text = memoryview(value.text)
            if not text or text[0] != 0x22:  # a double quote
                return _parse_again(position, line, fields)
            return Record(
                _scalar(getattr(value, id_)),
                _scalar(getattr(value, source)),
                _scalar(getattr(value, url)),
                text,
            )
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _parse_again(position, line, fields)

    return parse


def _scalar(value: str | int | None) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


class _BadLineError(Exception):
    """A line that gives no text; args are the reason and the detail."""


def _parse_again(position: int, line: bytes, fields: Fields) -> Record | None:
    """Read a line with the standard library, and say what is wrong with it."""
    if not line or line.isspace():
        return None
    try:
        value = _load(position, line)
    except _BadLineError as bad:
        return bad_record(*bad.args)
    names = (fields.id_field, fields.source_field, fields.url_field)
    id_, source, url = (_as_string(value.get(name)) for name in names)
    try:
        text = _text(value, fields.text_field, line)
    except _BadLineError as bad:
        return Record(id_, source, url, b"", *bad.args)
    return Record(id_, source, url, json.dumps(text, ensure_ascii=False).encode())


def _load(position: int, line: bytes) -> dict[str, Any]:
    """Decode a line that should be one JSON object."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise _BadLineError("bad_utf8", bad_utf8_detail(error, position)) from None
    except json.JSONDecodeError as error:
        what = f"{error.msg[0].lower()}{error.msg[1:]} at character {error.pos}"
        raise _BadLineError("bad_json", f"{what} of {_snippet(line)}") from None
    except RecursionError:
        raise _BadLineError("bad_json", f"nested too deeply: {_snippet(line)}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise _BadLineError("bad_json", f"{error}: {_snippet(line)}") from None
    if not isinstance(value, dict):
        raise _BadLineError("bad_json", f"not an object but {_kind(value)}: {_snippet(line)}")
    return value


def _text(value: dict[str, Any], field: str, line: bytes) -> str:
    """Return the text of an object, if it is one that UTF-8 can hold."""
    text = value.get(field)
    if text is None:
        how = "is null" if field in value else "is missing"
        raise _BadLineError("missing_text", f"the field {field!r} {how}: {_snippet(line)}")
    if not isinstance(text, str):
        detail = f"the field {field!r} is {_kind(text)}: {_snippet(line)}"
        raise _BadLineError("text_not_string", detail)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        detail = f"lone surrogate \\u{ord(text[at]):04x} at character {at} of the text"
        raise _BadLineError("bad_utf8", detail) from None
    return text


def _as_string(value: Any) -> str | None:
    """Show any JSON value as a string: strings as they are, the rest as JSON."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # lone surrogates cannot be stored


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "an array" if isinstance(value, list) else "an object")


def _snippet(line: bytes) -> str:
    text = line[:_SNIPPET_BYTES].decode(errors="replace").strip()
    return f"{text!r}{'…' if len(line) > _SNIPPET_BYTES else ''}"
