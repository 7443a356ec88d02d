"""Personal data that has a form: e-mail and IP addresses, phone, card and IBAN numbers.

Found by pattern, and where there is a check digit only if it is right, so that most numbers are
left alone: names and addresses of people are not looked for. Here:

* an *e-mail* address has one @, a domain of two labels or more, and 64 bytes at most before the @;
* an *IP* address is four decimal numbers up to 255 with dots (which some version numbers are too),
  or one of IPv6 (RFC 4291) that can be a machine's: global, unique local or link-local, or eight
  groups of which four have three digits or more;
* a *phone* number has 7 to 15 digits (E.164), and
  - begins with "+", or with "00" and has separators;
  - or is three, three and four digits with separators (North America), perhaps after "1";
  - or has 9 digits or more in groups with one kind of separator, the first a trunk 0 (most of
    Europe);
  - or begins with an area code in brackets, before two groups of three or four;
  - or follows "phone", "tel", "mobile", "call me on" and the like;
* a *card* number has 13 to 19 digits, in groups by one space or hyphen or in one, begins with 2 to
  6, and its last digit is right (Luhn, ISO/IEC 7812-1);
* an *IBAN* has two letters and 13 to 32 letters and digits, and is 1 modulo 97 (ISO 13616).

Where two stand over the same bytes, the one that begins first counts, then the one named first.

`signals.pii` counts them. `signals.mask_pii` has the scan replace them by their kinds before it
hashes or measures anything. So no text of the dataset holds them, and nothing made of texts does:
kept, dropped and spans shards, the index, fragments, the reference and what is learned for it. In
the ledger's details, what is quoted of records that could not be read is masked too, or left out
where a mask could miss it (`mask_detail`). Not masked are a record's `id`, `url` and `source`: they
say where it came from, and a source is what mixtures and folds go by. Where they hold such data,
name other fields in `[input]`.
"""

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv6Address
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import ReconcileError

VERSION = "pii-v2"
MASK_VERSION = f"pii-mask-v2 ({VERSION})"

KINDS = ("email", "iban", "card", "phone", "ip")

SIGNALS: dict[str, tuple[pa.DataType, str]] = {
    "pii_email": (pa.int64(), "e-mail addresses"),
    "pii_iban": (pa.int64(), "IBANs with the right check digits"),
    "pii_card": (pa.int64(), "payment card numbers with the right check digit"),
    "pii_phone": (pa.int64(), "phone numbers"),
    "pii_ip": (pa.int64(), "IPv4 and IPv6 addresses"),
}
"""Name → type and meaning, in the order of the columns and of `KINDS`."""

MASKED: dict[str, tuple[pa.DataType, str]] = {
    **{
        f"masked_{name.removeprefix('pii_')}": (type_, f"{meaning} that were masked")
        for name, (type_, meaning) in SIGNALS.items()
    },
    "masked_bytes": (pa.int64(), "bytes of the text as it was read that were masked"),
}
"""The columns of masking. `bytes` of the text as it was read is that of the masked text plus
`masked_bytes` less, for each that was masked, the bytes of its kind and two brackets."""

# Each pattern begins with a set of characters and only then looks at what stands before them, since
# re skips to the next character of a set by itself: a third of the time. Where a pattern
# could cut up a hostile text's digits in too many ways, it does not give them back ("+").
_EMAIL = re.compile(
    rb"\w(?<![\w.%+-].)[\w.%+-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,24}\b"
)
_IBAN = re.compile(
    rb"[A-Za-z](?<!\w.)[A-Za-z]\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?!\w)"
)
_CARD = re.compile(rb"[2-6](?<![\w+.-].)\d{3}(?:[ -]?\d{1,6}+){2,4}(?![\w-])")
_GROUPS = rb"[1-9]\d{0,2}(?:[ .-]?\(?\d{1,7}+\)?){2,6}"
_SEVEN = rb"\d{3}[-. ]\d{4}"
_PHONE = re.compile(
    rb"[+(\d](?<![\w+].)(?:"
    rb"(?:(?<=\+)|(?<=0)(?<![.-].)0(?=\d{1,3}[ .-]))" + _GROUPS + rb"(?: ?x\d{1,5})?(?!\w)"
    rb"|(?<![.-].)(?<!\d .)(?:"
    rb"(?:(?<=1)[-. ](?:\(\d{3}\) ?|\d{3}[-. ])|(?<=\()\d{3}\) ?|(?<=\d)\d\d[-. ])"
    + _SEVEN
    + rb"(?: ?x\d{1,5})?"
    rb"|(?<=0)(?!\d\d-\d\d-\d{4})[1-9]\d{0,3}(?:([-. ])\d{2,4}(?:\1\d{2,4}){1,3}|[-. ]\d{5,8})"
    rb"|(?<=\()(?:0[1-9]\d{0,3}|[1-9]\d{1,2})\) ?\d{3,4}[-. ]\d{3,4}"
    rb")(?![\w-]| \d|\.\d))"
)
_NUMBER = re.compile(rb"[(\d](?<![\w.+-].)\d{0,4}\)?(?:[-. ]?\d{2,5}){1,4}(?![\w-]|\.\d)")
_CALLED = re.compile(
    rb"\b(?:(?:tele)?phone|tel|mobile|cell|fax|telefon|t\xc3\xa9l|call(?: \w{2,4})? (?:at|on))\b"
    rb"\.?(?: (?:no|number)\b\.?)?\s{0,2}:?\s{0,2}\Z",
    re.IGNORECASE,
)
_CALLED_BYTES = 32
_IPV4 = re.compile(rb"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_COLONS = re.compile(rb":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(
    rb"[0-9A-Fa-f](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:])"
)
_OF_MACHINES = (0x2000, 0x4000), (0xFC00, 0xFE00), (0xFE80, 0xFEC0)
"""First 16 bits of addresses of single machines (RFC 4291, 4193): global, unique local, link."""
_NO_DIGIT = re.compile(rb"\D")

_QUOTE = re.compile(
    r"""b?(?P<mark>['"])(?P<content>(?:\\.|(?!(?P=mark))[^\\])*)(?P<end>(?:(?P=mark)…?)|\\?\Z)""",
    re.DOTALL,
)
_WHOLE_QUOTE = 40
"""Readers cut no quote that is shorter."""


class Found(NamedTuple):
    """Bytes `start` to `end` of a document that are of one of `KINDS`."""

    start: int
    end: int
    kind: str


def find(text: bytes) -> list[Found]:
    """Return what was found in one document (UTF-8), in order, without overlap."""
    candidates = sorted(_candidates(text), key=lambda item: (item.start, KINDS.index(item.kind)))
    found: list[Found] = []
    for item in candidates:
        if not found or item.start >= found[-1].end:
            found.append(item)
    return found


def mask(text: bytes) -> tuple[bytes, list[Found]]:
    """Return a document with what was found replaced by its kind, such as `<email>`.

    Returns:
        The text, in which nothing more is found, and what was replaced. What stands over the same
        bytes as another find may only be found when that is masked; its place is then that in the
        text with the masks.
    """
    masked: list[Found] = []
    while found := find(text):
        parts = []
        at = 0
        for item in found:
            parts += [text[at : item.start], _label(item.kind)]
            at = item.end
        text = b"".join([*parts, text[at:]])
        masked += found
    return text, masked


def mask_batch(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
    """Mask n documents.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        Data and offsets of the masked documents, and the columns `MASKED`, int64 (n) each.

    Raises:
        ReconcileError: the bytes that were masked and those that are left do not add up.
    """
    columns = {name: np.zeros(len(offsets) - 1, np.int64) for name in MASKED}
    view, parts = data.data, []
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        text, masked = mask(bytes(view[begin:end]))
        parts.append(text)
        for item in masked:
            columns[f"masked_{item.kind}"][row] += 1
            columns["masked_bytes"][row] += item.end - item.start
    sizes = np.array([len(part) for part in parts], np.int64)
    put = sum(len(_label(kind)) * columns[f"masked_{kind}"] for kind in KINDS)
    wrong = np.flatnonzero(sizes + columns["masked_bytes"] - put != np.diff(offsets))
    if len(wrong):
        row = int(wrong[0])
        raise ReconcileError(
            f"document {row} of a batch had {offsets[row + 1] - offsets[row]} bytes, of which"
            f" {columns['masked_bytes'][row]} were masked, but has {sizes[row]} now"
        )
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), ends, columns


def mask_detail(detail: str, names: Collection[str]) -> str:
    """Return the detail of a ledger row without personal data.

    Readers quote records as Python literals. A quote that is a field's name stays, one that is
    whole and shows the bytes as they are is masked. Of a longer one, which may have been cut
    through a number, or one with escapes, which change what stands before it, nothing is left.

    Args:
        detail: what a reader says of a record.
        names: the fields' names.
    """

    def shown(match: re.Match[str]) -> str:
        content, end = match.group("content"), match.group("end")
        if content in names:
            return match.group()
        if end not in {"'", '"'} or "\\" in content or len(content) >= _WHOLE_QUOTE:
            return "(not shown: signals.mask_pii)"
        return f"{end}{mask(content.encode())[0].decode()}{end}"

    return _QUOTE.sub(shown, detail)


def _label(kind: str) -> bytes:
    """Return what stands in a masked text."""
    return f"<{kind}>".encode()


def count(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `SIGNALS`, each int64 (n): how many of each kind a document has.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
    """
    counts = np.zeros((len(KINDS), len(offsets) - 1), np.int64)
    view = data.data
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        for item in find(bytes(view[begin:end])):
            counts[KINDS.index(item.kind), row] += 1
    return {f"pii_{kind}": counts[place] for place, kind in enumerate(KINDS)}


def _candidates(text: bytes) -> Iterator[Found]:
    if b"@" in text:
        for match in _EMAIL.finditer(text):
            yield Found(*match.span(), "email")
    for kind, pattern, is_right in (
        ("iban", _IBAN, _is_iban),
        ("card", _CARD, _is_card),
        ("phone", _PHONE, _is_phone),
    ):
        for match in pattern.finditer(text):
            if is_right(match.group()):
                yield Found(*match.span(), kind)
    for match in _NUMBER.finditer(text):
        begin = match.start()
        if 7 <= len(_NO_DIGIT.sub(b"", match.group())) <= 15 and _CALLED.search(
            text[max(0, begin - _CALLED_BYTES) : begin]
        ):
            yield Found(begin, match.end(), "phone")
    for match in _IPV4.finditer(text):
        if all(part == b"%d" % int(part) and int(part) < 256 for part in match.group().split(b".")):
            yield Found(*match.span(), "ip")
    if _COLONS.search(text):
        for match in _IPV6.finditer(text):
            if _is_ipv6(match.group()):
                yield Found(*match.span(), "ip")


def _is_iban(raw: bytes) -> bool:
    plain = raw.replace(b" ", b"").decode().upper()
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _is_card(raw: bytes) -> bool:
    digits = [byte - 0x30 for byte in _NO_DIGIT.sub(b"", raw)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_ipv6(raw: bytes) -> bool:
    try:
        first = int.from_bytes(IPv6Address(raw.decode()).packed[:2], "big")
    except ValueError:
        return False
    if any(low <= first < high for low, high in _OF_MACHINES):
        return True
    groups = raw.split(b":")
    return len(groups) == 8 and sum(len(group) > 2 for group in groups) >= 4


def _is_phone(raw: bytes) -> bool:
    digits = _NO_DIGIT.sub(b"", raw)
    # 01.02.2003 is a date; no national number with its trunk 0 is as short.
    return (9 if raw[:1] == b"0" else 8) <= len(digits) <= 15
