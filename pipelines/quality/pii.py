"""Personal data that has a form: e-mail and IP addresses, phone, card and IBAN numbers.

Found by pattern, and where there is a check digit only if it is right, so that most numbers are
left alone: names and addresses of people are not looked for. Here:

* an *e-mail* address has one @, a domain of two labels or more, and 64 bytes at most before the @,
  which may be letters up to U+07FF (Latin, Greek, Cyrillic, …; scripts that use no spaces begin
  behind them), as may the domain's, and apostrophes inside a word;
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
  6, and its last digit is right (Luhn, ISO/IEC 7812-1). Where more numbers follow it, such as an
  expiry, it is one by its issuer's first digits and groups, unless it lies in a row of numbers;
* an *IBAN* has two letters and 13 to 32 letters and digits, and is 1 modulo 97 (ISO 13616); with a
  registered country's letters it has that country's length, whatever follows it.

Digits are ASCII's and a space is U+0020: fullwidth digits and no-break spaces are not looked for.

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

VERSION = "pii-v3"
MASK_VERSION = f"pii-mask-v3 ({VERSION})"

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
_LETTER = rb"[\xc3-\xdf][\x80-\xbf]"
"""U+00C0 to U+07FF in UTF-8: alphabets whose words are parted by spaces."""
_LABEL = rb"(?:[A-Za-z0-9]|" + _LETTER + rb")(?:[A-Za-z0-9-]|" + _LETTER + rb"){0,62}"
_AT = re.compile(
    rb"@(?:" + _LABEL + rb"\.){1,8}"
    rb"(?:xn--[A-Za-z0-9-]{1,58}[A-Za-z0-9]\b|[A-Za-z]{2,24}\b|(?:" + _LETTER + rb"){2,24}(?!\w))"
)
_LOCAL_BACKWARDS = re.compile(rb"(?:[\w.%+-]|[\x80-\xbf][\xc3-\xdf]|(?<=\w)'(?=\w))+")
_MOST_LOCAL = 64
"""Bytes before the @ (RFC 5321, 4.5.3.1.1)."""
_IBAN = re.compile(
    rb"[A-Za-z](?<!\w.)[A-Za-z]\d{2}(?=((?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?)(?!\w))"
)
_IBAN_BYTES = {
    country: size
    for size, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    )
    for country in countries.split()
}
"""Length of the countries' IBANs (SWIFT's registry of IBANs, which ISO 13616 names)."""
_CARD_HEAD = re.compile(rb"[2-6](?<![\w+.-].)\d{3}(?=[ -]?\d)")
_CARD = re.compile(rb"[2-6]\d{3}(?:[ -]?\d{1,6}+){2,4}(?![\w-])")
# First digits of Visa, Mastercard, JCB, Discover and UnionPay, then of American Express and Diners,
# then JCB's old ones.
_ISSUED = re.compile(
    rb"(?:(?:4\d|5[1-5]|2[2-7]|35|6[0245])\d\d(?:([ -])\d{4}\1\d{4}\1\d{4}|\d{9,15})"
    rb"|3[04-9]\d\d(?:([ -])\d{6}\2\d{4,5}|\d{10,11})|2131\d{11})(?!\w|-\D|-\Z)"
)
_ROW_BEFORE = re.compile(rb"\d{4}[ -]\d{4,19}[ -]\Z")
_ROW_BEHIND = re.compile(rb"(?:[ -]\d{4,}){2}")
_ROW_BYTES = 4 + 1 + 19 + 1
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

_BAR = re.compile(rb"[^\w\s.%+()@:'\x80-\xbf\xc3-\xdf-]")
"""Bytes that are in nothing that is found and, where it looks at what stands beside it, say no more
than an end of the text: `find` finds the same in the parts between them."""
_NEAR = 256
"""Bytes beside a mask that are looked at again where no `_BAR` is among them."""
_CUT = 192
"""Bytes at the other end of them that only show where something ends: more than a domain's label,
an address before its @, or anything else that is found and what is looked at beside it."""
_MOST_LOOKS = 8
"""Most looks at a whole document, so that the time goes by its bytes."""

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
        The text, in which nothing more is found, and what was replaced, in order and without
        overlap. Some of it is found only where what stands beside it is masked. (More may be left
        where masks uncover numbers `_NEAR` bytes or more away, `_MOST_LOOKS` times one another.)
    """
    masked = found = find(text)
    for _ in range(_MOST_LOOKS):
        if not found:
            break
        more, all_seen = _uncover(text, masked)
        masked = sorted([*masked, *more])
        gaps = [] if all_seen else _gaps(masked, 0, len(text))
        found = [item for begin, end in gaps for item in _find_in(text, begin, end)]
        masked = sorted([*masked, *found])
    parts, at = [], 0
    for item in masked:
        parts += [text[at : item.start], _label(item.kind)]
        at = item.end
    return b"".join([*parts, text[at:]]), masked


def _uncover(text: bytes, masked: list[Found]) -> tuple[list[Found], bool]:
    """Return what is found beside masks, then beside the masks of that, and so on.

    To what stands beside it a mask is an end of the text, and so is each byte of `_BAR`. So only
    the parts between those are looked at or, where they are long, their bytes near the mask: the
    time goes by the number of masks, however they uncover each other.

    Returns:
        The finds, and whether each part was looked at as a whole.
    """
    uncovered: list[Found] = []
    all_seen = True
    gaps = _gaps(masked, 0, len(text))
    while gaps:
        begin, end = gaps.pop()
        near = min(end, begin + _NEAR)
        bar = _BAR.search(text, begin, near)
        stop = bar.start() if bar else near
        found = _find_in(text, begin, stop)
        if stop < end and not bar:
            all_seen = False
            found = [item for item in found if item.end <= stop - _CUT]
        if stop < end and not found:
            near = max(begin, end - _NEAR)
            bar = _BAR.search(text[near:end][::-1])
            start = end - bar.start() if bar else near
            found = _find_in(text, start, end)
            if start > begin and not bar:
                all_seen = False
                found = [item for item in found if item.start >= start + _CUT]
        if found:
            uncovered += found
            gaps += _gaps(found, begin, end)
    return uncovered, all_seen


def _gaps(found: list[Found], begin: int, end: int) -> list[tuple[int, int]]:
    """Return what is between `begin`, finds in order, and `end`."""
    behind = [begin, *(item.end for item in found)]
    return list(zip(behind, [*(item.start for item in found), end], strict=True))


def _find_in(text: bytes, begin: int, end: int) -> list[Found]:
    return [Found(begin + a, begin + b, kind) for a, b, kind in find(text[begin:end])]


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
    yield from _emails(text)
    for match in _IBAN.finditer(text):
        if end := _iban_end(text, match.start(), match.end(1)):
            yield Found(match.start(), end, "iban")
    yield from _cards(text)
    for match in _PHONE.finditer(text):
        if _is_phone(match.group()):
            yield Found(*match.span(), "phone")
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


def _emails(text: bytes) -> Iterator[Found]:
    """Yield an address for each @ that a domain follows; looked for backwards, which is quick."""
    for match in _AT.finditer(text):
        at = match.start()
        # One byte more shows that it is longer, two where a letter of two is cut.
        local = _LOCAL_BACKWARDS.match(text[max(0, at - _MOST_LOCAL - 2) : at][::-1])
        if local and local.end() <= _MOST_LOCAL and (name := local.group().rstrip(b".%+-'")):
            yield Found(at - len(name), match.end(), "email")


def _iban_end(text: bytes, begin: int, end: int) -> int | None:
    """Return where an IBAN ends of which the groups up to `end` may be, None if there is none."""
    size = _IBAN_BYTES.get(text[begin : begin + 2].decode().upper())
    if size is not None:  # what follows may look like groups too
        cut = begin
        while size and cut < end:
            size -= text[cut] != 0x20
            cut += 1
        if size or (cut < end and text[cut] != 0x20):
            return None
        end = cut
    return end if _is_iban(text[begin:end]) else None


def _is_iban(raw: bytes) -> bool:
    plain = raw.replace(b" ", b"").decode().upper()
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _cards(text: bytes) -> Iterator[Found]:
    """Yield what is a card number up to its last group, else what is one before more groups.

    One in ten of any numbers has the right last digit, so those in a row of numbers, which more
    than one number of four digits is before or behind, are no cards but behind another.
    """
    tried = last = -1
    for head in _CARD_HEAD.finditer(text):
        begin = head.start()
        if begin < last:
            continue
        match = _CARD.match(text, begin) if begin >= tried else None
        if match is not None:
            tried = match.end()
        if match is None or not _is_card(match.group()):
            match = _issued(text, begin)
            if match is None or not (
                begin == last + 1
                or not _ROW_BEFORE.search(text[max(0, begin - _ROW_BYTES) : begin])
            ):
                continue
            end = match.end()
            if _ROW_BEHIND.match(text, end) and not _issued(text, end + 1):
                continue
        tried = last = match.end()
        yield Found(*match.span(), "card")


def _issued(text: bytes, begin: int) -> re.Match[bytes] | None:
    """Return a card number in its issuer's form that begins there, whatever is behind it."""
    match = _ISSUED.match(text, begin)
    return match if match is not None and _is_card(match.group()) else None


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
