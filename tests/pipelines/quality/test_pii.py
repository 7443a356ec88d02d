from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import (
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    known_signals,
    pii,
)
from pipelines.quality.pii import (
    _BAR,
    _IBAN_BYTES,
    KINDS,
    MASKED,
    count,
    find,
    mask,
    mask_batch,
    mask_detail,
)
from shards.errors import RecipeError
from shards.text import flat


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("jane.doe+lists@mail.example.org", "email"),
        ("GB82 WEST 1234 5698 7654 32", "iban"),
        ("DE89370400440532013000", "iban"),
        ("4111 1111 1111 1111", "card"),
        ("378282246310005", "card"),
        ("3782-822463-10005", "card"),
        ("5555555555554444", "card"),
        ("+49 (30) 901820", "phone"),
        ("(415) 555-2671", "phone"),
        ("905-674-3793", "phone"),
        ("+1-903-140-4508x769", "phone"),
        ("1-415-555-2671", "phone"),
        ("001-415-555-2671", "phone"),
        ("01.42.68.53.00", "phone"),
        ("030 901 82 00", "phone"),
        ("0171-5551234", "phone"),
        ("(08) 8747 6301", "phone"),
        ("192.168.0.254", "ip"),
        ("2001:db8::8a2e:370:7334", "ip"),
        ("fe80::1", "ip"),
        ("6e40:4041:c617:e898:c11:40d2:c669:2eb4", "ip"),
        ("GB83 WEST 1234 5698 7654 32", None),
        ("4111 1111 1111 1112", None),
        ("user@localhost", None),
        ("256.1.1.1", None),
        ("1.2.3.4.5", None),
        ("010.1.1.1", None),
        ("std::string", None),
        ("dead::beef", None),
        ("2001:db8::/32", None),
        ("00:1b:44:11:3a:b7:00:01", None),
        ("12:34:56", None),
        ("0.00390625", None),
        ("054-28-6917", None),
        ("01.02.2003", None),
        ("12 (99) 345-367", None),
        ("5 0123 4567 0123", None),
        ("467 3395", None),
        ("2026-11-24 12:00", None),
        ("+12 34", None),
        ("ISBN 978-0-306-40615-7", None),
    ],
)
def test_each_kind_by_example(text, kind):
    raw = f"é: {text}, and".encode()
    found = find(raw)
    assert [item.kind for item in found] == ([kind] if kind else [])
    if kind:
        assert raw[found[0].start : found[0].end] == text.encode()
        assert mask(raw) == (f"é: <{kind}>, and".encode(), found)


@pytest.mark.parametrize(
    "text",
    ["Phone:\n467 3395", "please call me on 9472 7916", "Tel. no. 72 128 827", "Fax: 5551234"],
)
def test_a_word_before_it_makes_a_number_a_phone_number(text):
    (found,) = find(text.encode())
    assert found.kind == "phone"
    assert found.end == len(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("AT61 1904 3002 3457 3201 is mine", "<iban> is mine"),
        ("AT611904300234573201 from me", "<iban> from me"),
        ("es91 2100 0418 4502 0005 1332 por favor", "<iban> por favor"),
        ("AT61 1904 3002 3457 3201 BE68 5390 0754 7034 und", "<iban> <iban> und"),
        ("XX12 AT61 1904 3002 3457 3201 is", "XX12 <iban> is"),
        ("AT61 1904 3002 3457 320 is mine", None),  # a digit short of a country's length
        ("4111 1111 1111 1111 12/25 cvv", "<card> 12/25 cvv"),
        ("4111 1111 1111 1111 124", "<card> 124"),
        ("4111111111111111 12/25", "<card> 12/25"),
        ("4111-1111-1111-1111 2025", "<card> 2025"),
        ("4111-1111-1111-1111-124", "<card>-124"),
        ("2025 4111 1111 1111 1111", "2025 <card>"),
        ("3782 822463 10005 1234", "<card> 1234"),
        ("213176828496175 1234", "<card> 1234"),
        ("4111 1111 1111 1111 3782 822463 10005 5500000000000004 1 2", "<card> <card> <card> 1 2"),
        ("4111 1111 1111 1111 2025 2026", None),  # a row of numbers
        ("2024 2025 4111 1111 1111 1111", None),
        ("9111 1111 1111 1111 125", None),
    ],
)
def test_what_follows_a_number_does_not_hide_it(text, masked):
    assert mask(text.encode())[0].decode() == (masked or text)


@given(
    st.sampled_from(sorted(_IBAN_BYTES)),
    st.data(),
    st.sampled_from(
        ["", " ", " a", " is ours", " mine", " 12", " word 1234", ", 1", ".", "\n9999 x"]
    ),
)
def test_an_iban_of_every_country_is_masked_whatever_follows(country, data, rest):
    size = _IBAN_BYTES[country] - 4
    account = data.draw(st.text("0123456789ABCXYZ", min_size=size, max_size=size))
    digits = "".join(str(int(character, 36)) for character in f"{account}{country}00")
    plain = f"{country}{98 - int(digits) % 97:02}{account}"
    grouped = " ".join(plain[at : at + 4] for at in range(0, len(plain), 4))
    for iban in (plain, grouped):
        found = [item for item in find(f"to {iban}{rest}".encode()) if item.kind == "iban"]
        assert [(item.start, item.end) for item in found] == [(3, 3 + len(iban))]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("müller@example.de", "<email>"),
        ("o'brien@example.com", "<email>"),
        ("('jo@example.com')", "('<email>')"),
        ("f(user+'@example.com')", None),
        ("a@müller.de, b@example.xn--p1ai", "<email>, <email>"),
        ("почта@пример.рф", "<email>"),
        ("邮箱：jo@example.com，谢谢", "邮箱：<email>，谢谢"),
        ("联系jo@example.comです", "联系<email>です"),
        ("“jo@example.com”…jo@example.com", "“<email>”…<email>"),
        ("...jo@example.com (+jo@example.com)", "...<email> (+<email>)"),
        ("é" * 32 + "@example.com", "<email>"),
        ("é" * 33 + "@example.com", None),
        ("x" + "é" * 32 + "@example.com", None),
    ],
)
def test_an_address_is_masked_whole(text, masked):
    assert mask(text.encode())[0].decode() == (masked or text)


def test_long_digits_cost_no_time():
    """They took a minute a megabyte, cut up in every way there is."""
    for hostile in (b"+" + b"1" * 60 + b"x ", b"2" * 60 + b"x ", b"tel (1" + b"1" * 60 + b"x "):
        assert find(hostile * 1000) == []


def test_other_words_do_not():
    assert find(b"model 467 3395, phones 467 3395, table 72 128 827") == []


def test_counts_are_columns_where_the_recipe_asks():
    texts = ["a@b.org, c@d.org at 10.0.0.1", "", "none"]
    data, offsets = flat(pa.array(texts, pa.large_string()))
    config = SignalsConfig(pii=True)
    found = compute_signals(data, offsets, config)
    assert list(found) == list(known_signals(config))
    assert found["pii_email"].tolist() == [2, 0, 0]
    assert found["pii_ip"].tolist() == [1, 0, 0]
    assert "pii" in definitions(config)
    assert "pii_email" not in known_signals(SignalsConfig())


@given(st.text(st.sampled_from("a1@.+- 4é0():f")), st.text())
def test_masked_text_is_utf8_and_spans_do_not_overlap(one, other):
    text = (one + other).encode()
    found = find(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(item.kind in KINDS for item in found)
    masked, replaced = mask(text)
    masked.decode()
    assert find(masked) == []
    assert set(found) <= set(replaced)
    assert sum(c[0] for c in count(*flat(pa.array([text.decode()]))).values()) == len(found)
    assert count(np.zeros(0, np.uint8), np.zeros(1, np.int64))["pii_ip"].shape == (0,)


_PIECES = st.sampled_from(
    "a 1 é . - + ( ) @ : ' % 00 : 1:2:: \n tel Phone: 030 901 82 00|+49 30 901820|(415) 555-2671|"
    "jo@example.com|10.0.0.1|AT61 1904 3002 3457 3201|XX93 ABCD EFGH IJKL|4111 1111 1111 1111|"
    " |2025 |415-555-2671|fe80::1|12 34 56|001-415-555-2671|call me on 467 3395|\n".split("|")
    + list("a1é.-+()@:'% ,;<é你 ")
)
_BARS = [bar.encode() for bar in map(chr, range(0x3000)) if _BAR.match(bar.encode())]


def _in_rounds(text):
    while found := find(text):
        for item in reversed(found):
            text = text[: item.start] + f"<{item.kind}>".encode() + text[item.end :]
    return text


@given(st.lists(_PIECES, max_size=6), st.sampled_from(_BARS), st.lists(_PIECES, max_size=6))
def test_what_is_on_either_side_of_a_bar_is_found_by_itself(one, bar, other):
    left, right = "".join(one).encode(), "".join(other).encode()
    begin = len(left + bar)
    behind = [(item.start + begin, item.end + begin, item.kind) for item in find(right)]
    assert find(left + bar + right) == find(left) + behind


@given(st.lists(_PIECES, max_size=30))
def test_masks_are_those_of_rounds_over_the_whole_text(pieces):
    text = "".join(pieces).encode()
    masked, replaced = mask(text)
    assert masked == _in_rounds(text)
    assert all(a.end <= b.start for a, b in pairwise(replaced))


@pytest.mark.parametrize(
    ("unit", "label"),
    [
        (b"+49 30 901820", b"<phone>"),  # each is found when the one before it is masked
        (b"(415) 555-2671", b"<phone>"),
        (b"XX93 ABCD EFGH IJKL ", b"<iban> "),  # when the one behind it is
    ],
)
def test_numbers_that_uncover_each_other_cost_no_time(unit, label, monkeypatch):
    """10 KB took seconds and 1 MB hours: a look at the whole text for each."""
    looked_at = 0

    def counted(text):
        nonlocal looked_at
        looked_at += len(text)
        return find(text)

    monkeypatch.setattr(pii, "find", counted)
    assert mask(unit * 500)[0] == label * 500
    assert looked_at < 500 * 4 * pii._NEAR


def test_a_text_without_bars_is_masked_to_its_end():
    gap = b" word" * 200 + b" "
    text = b"+49 30 901820" * 2 + gap + b"jo@example.com" + gap + b"(415) 555-2671" * 3
    assert mask(text)[0] == b"<phone>" * 2 + gap + b"<email>" + gap + b"<phone>" * 3


def test_masked_bytes_add_up_in_every_document():
    texts = ["a@b.org, c@d.org at 10.0.0.1", "", "none", "é 4111 1111 1111 1111"]
    data, offsets = flat(pa.array(texts, pa.large_string()))
    masked, ends, columns = mask_batch(data, offsets)
    raw = masked.tobytes()
    assert [raw[a:b].decode() for a, b in pairwise(ends)] == [
        "<email>, <email> at <ip>",
        "",
        "none",
        "é <card>",
    ]
    assert list(columns) == list(MASKED)
    assert columns["masked_email"].tolist() == [2, 0, 0, 0]
    assert columns["masked_bytes"].tolist() == [22, 0, 0, 19]


def test_masked_and_counted_is_refused():
    with pytest.raises(RecipeError, match="nothing is left to count"):
        check_signals(SignalsConfig(pii=True, mask_pii=True))
    config = SignalsConfig(mask_pii=True)
    assert definitions(config)["pii_mask"] == "pii-mask-v3 (pii-v3)"
    assert "masked_card" in known_signals(config)


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("the field 'text' is missing: 'to a@b.org'", "the field 'text' is missing: 'to <email>'"),
        ("the response is 'HTTP/1.1 404 Not Found'", "the response is 'HTTP/1.1 404 Not Found'"),
        ('bad: "it\'s a@b.org"', 'bad: "it\'s <email>"'),
        ("not closed at character 9 of '" + "x" * 70 + " a@b.o'…", None),
        ("cut: b'" + "x" * 46 + " 4111 1111 1111'", None),
        (r"in b'\n4111 1111 1111 1111\xff'", None),
        ("half a literal: 'a@b.org", None),
        (r"half a literal: 'a@b.org\\", None),
        (
            "the file ends inside a gzip member, at byte 90",
            "the file ends inside a gzip member, at byte 90",
        ),
    ],
)
def test_details_quote_nothing_that_a_mask_could_miss(detail, shown):
    found = mask_detail(detail, ["text", "id"])
    if shown is None:
        assert found.endswith("(not shown: signals.mask_pii)")
        assert not any(part in found for part in ("@", "4111", "xx"))
    else:
        assert found == shown


@given(st.binary(max_size=60), st.text(max_size=60))
def test_no_literal_of_any_bytes_keeps_personal_data(one, other):
    secret = "jane@mail.example.org"
    for quoted in (one + b" " + secret.encode(), f"{other} {secret}", f"{secret} {other}"):
        assert secret not in mask_detail(f"at byte 7: {quoted!r}", ["text"])
