import gzip
import io
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import cursor, read
from pipelines.readers.streams import gzip_pieces
from pipelines.readers.warc import warc_records

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"


def record(kind, body, number=0, **headers):
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": f"http://example.org/{number}",
        "Content-Length": len(body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + body + b"\r\n\r\n"


def to_text(page):
    return page.body.decode(errors="replace")


def parse(data, max_bytes=1000, piece=7):
    def pieces():
        return (data[at : at + piece] for at in range(0, len(data), piece))

    return [(at, made) for at, _, made in warc_records(pieces, max_bytes, to_text)]


CRAWL = [
    record("warcinfo", b"software: x\r\n"),
    record("request", b"GET / HTTP/1.1\r\n\r\n", 1),
    record("response", PAGE + b"page one", 1),
    record("revisit", b"HTTP/1.1 304\r\n\r\n", 2),
    record("conversion", "téxt two".encode(), 2, Content_Type="text/plain"),
    record("resource", b"\xff\xd8", 3, Content_Type="image/jpeg"),
    record("resource", b"log", 4, WARC_Target_URI="metadata://wget.log"),
]


def test_documents_have_their_position_url_and_record_id():
    data = b"".join(CRAWL)
    at = [sum(map(len, CRAWL[:k])) for k in range(len(CRAWL))]
    for piece in (1, 64, 10**6):
        one, two, image = parse(data, piece=piece)
        assert one == (at[2], ("urn:uuid:1", None, "http://example.org/1", b"page one", None, None))
        assert (two[0], two[1].text.decode()) == (at[4], "téxt two")
        assert (image[0], image[1].error, image[1].id) == (at[5], "not_text", "urn:uuid:3")


@pytest.mark.parametrize(
    ("kind", "media", "body", "text"),
    [
        ("resource", "text/html; charset=utf-8", b"<p>page", b"<p>page"),
        ("conversion", "text/plain; charset=UTF-8", "é".encode(), "é".encode()),
        ("resource", "Text/Plain", b"text", b"text"),
    ],
)
def test_records_that_are_no_response_hold_texts_of_their_media_type(kind, media, body, text):
    ((_, made),) = parse(record(kind, body, Content_Type=media))
    assert (bytes(made.text), made.error, made.id) == (text, None, "urn:uuid:0")


def test_a_text_in_another_charset_is_decoded_as_pages_are():
    seen = []
    data = record("conversion", b"caf\xe9", Content_Type="text/plain; charset=latin-1")
    list(warc_records(lambda: iter([data]), 1000, lambda page: seen.append(page) or "café"))
    assert seen == [(b"caf\xe9", "text/plain", "latin-1")]


@pytest.mark.parametrize(
    ("quirk", "reason"),
    [
        (b"garbage\r\nmore of it\r\n", "corrupt_warc"),
        (record("response", b"x", Content_Length="many"), "corrupt_warc"),
        (record("response", PAGE + b"too long " * 9, Content_Length=60), "corrupt_warc"),
        (record("response", PAGE + bytes(2000)), "record_too_large"),
        (record("response", b"HTTP/1.1 404 Not Found\r\n\r\n"), "http_status"),
    ],
)
def test_damage_is_a_row_and_reading_goes_on_at_the_next_record(quirk, reason):
    rows = parse(CRAWL[2] + quirk + CRAWL[4])
    assert [made.error for _, made in rows if made.error] == [reason]
    assert next(made.text.decode() for _, made in rows if not made.error) == "page one"
    assert rows[-1][1].text.decode() == "téxt two"


LIES = [
    record("response", PAGE + b"page", 7, Content_Length=10**13),  # above max_bytes, so not kept
    record("response", PAGE + b"page", 7, Content_Length=900),  # kept, and read again
    record("request", b"GET / HTTP/1.1", 7, Content_Length=900),
]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_length_beyond_the_end_costs_one_record(memory, monkeypatch, lie, suffix):
    monkeypatch.setattr(read, "page_text", to_text)
    pages = [record("response", PAGE + b"page %d" % n, n) for n in range(6)]
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    rest = sum(map(len, pages[3:])) + len(lie) - lie.index(b"\r\n\r\n") - 4
    data = b"".join(map(pack, [*pages[:3], lie, *pages[3:]]))
    rows = memory.rows(f"a.warc{suffix}", data, max_record_bytes=1000)
    assert [row["text"] for row in rows if not row["error"]] == [f"page {n}" for n in range(6)]
    (bad,) = [row for row in rows if row["error"]]
    assert (bad["error"], bad["position"]) == ("truncated_warc", sum(map(len, pages[:3])))
    assert bad["detail"].endswith(f"bytes of which there are {rest}")


@pytest.mark.parametrize("lie", LIES)
def test_however_many_lengths_are_wrong_the_file_is_read_twice_at_most(lie):
    data = lie * 4 + CRAWL[2]
    opened = []

    def pieces():
        opened.append(True)
        return (data[at : at + 64] for at in range(0, len(data), 64))

    rows = [made for _, _, made in warc_records(pieces, 1000, to_text)]
    assert [made.error for made in rows] == ["truncated_warc"] * 4 + [None]
    assert len(opened) <= 2


PAGES = [record("response", PAGE + b"page %d" % n, n) for n in range(40)]


@pytest.mark.parametrize("kind", ["response", "request"])
@pytest.mark.parametrize("max_bytes", [50, 10**6])  # it is held, or goes by
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", "members"])
def test_a_length_that_ends_inside_the_file_hides_no_record(
    memory, monkeypatch, suffix, max_bytes, kind
):
    monkeypatch.setattr(read, "page_text", to_text)
    covered = sum(map(len, PAGES[3:20])) + 100  # ends inside a record
    lie = record(kind, PAGE + b"broken", 99, Content_Length=len(PAGE) + 10 + covered)
    records = [*PAGES[:3], lie, *PAGES[3:]]
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(suffix, bytes)
    data = pack(b"".join(records)) if suffix != "members" else b"".join(map(gzip.compress, records))
    name = {"members": "a.warc.gz"}.get(suffix, f"a.warc{suffix}")
    rows = memory.rows(name, data, max_record_bytes=max(max_bytes, len(PAGE) + 10))
    assert [row["text"] for row in rows if not row["error"]] == [f"page {n}" for n in range(40)]
    (bad,) = [row for row in rows if row["error"]]
    at = sum(map(len, PAGES[:3]))
    behind = at + lie.index(b"\r\n\r\n") + 4
    left_out = len(lie) - lie.index(b"\r\n\r\n") - 4
    assert (bad["error"], bad["position"], bad["id"]) == ("corrupt_warc", at, "urn:uuid:99")
    assert bad["detail"] == (
        f"Content-Length is {len(PAGE) + 10 + covered}, but behind so many bytes, at"
        f" {behind + len(PAGE) + 10 + covered}, no record begins, and one does at byte"
        f" {behind + left_out}: {left_out} bytes are left out and reading goes on there"
    )


@pytest.mark.parametrize("inner", [b"", PAGES[0], b"WARC/1.0\r\n", b"\r\nWARC/1.1\r\nx"])
@pytest.mark.parametrize("between", [b"\r\n\r\n", b"\n", b""])
@pytest.mark.parametrize("max_bytes", [10, 1000])
def test_a_right_length_is_believed_whatever_it_covers(inner, between, max_bytes):
    body = b"a WARC in a WARC:\r\n" + inner
    whole = record("resource", body, Content_Type="text/plain").removesuffix(b"\r\n\r\n")
    rows = parse(whole + between + CRAWL[4] + whole + between, max_bytes)
    found = [(at, made.error, bytes(made.text)) for at, made in rows]
    place = len(whole + between)
    own = ("record_too_large", b"") if len(body) > max_bytes else (None, body)
    text = (None, "téxt two".encode()) if max_bytes >= 9 else ("record_too_large", b"")
    assert found == [(0, *own), (place, *text), (place + len(CRAWL[4]), *own)]


@pytest.mark.parametrize("max_bytes", [100, 10**6])
def test_many_broken_records_are_read_in_linear_work(max_bytes, monkeypatch):
    """Each says that it covers the next 150: read again for each, that would be 150 times all."""
    body = PAGE + b"page"
    lies = [record("response", body, n, Content_Length=30_000) for n in range(1000, 1600)]
    assert len(set(map(len, lies))) == 1  # so that all end at one place inside a record
    data = b"".join(lies) + record("response", PAGE + b"x" * 40_000) + CRAWL[2]
    work = {"read": 0, "searched": 0}

    plain = cursor._HEAD

    class Counting:
        def finditer(self, text, *span):
            heads = plain.finditer(text, *span)
            at = span[0] if span else 0
            for head in heads:
                work["searched"] += head.end() - at
                at = head.end()
                yield head
            work["searched"] += (span[1] if span else len(text)) - at

        match = staticmethod(plain.match)

    monkeypatch.setattr(cursor, "_HEAD", Counting())

    def pieces():
        for at in range(0, len(data), 4096):
            work["read"] += len(data[at : at + 4096])
            yield data[at : at + 4096]

    rows = [made for _, _, made in warc_records(pieces, max_bytes, to_text)]
    last = [None if max_bytes > 40_000 else "record_too_large", None]
    assert [made.error for made in rows] == ["corrupt_warc"] * 600 + last
    assert work["read"] <= 2 * len(data)
    assert work["searched"] <= 3 * len(data)


def test_a_text_that_is_larger_than_a_record_may_be_is_a_row():
    data = record("response", PAGE + b"page")
    ((_, made),) = [
        (at, made)
        for at, _, made in warc_records(lambda: iter([data]), 1000, lambda page: "x" * 1001)
    ]
    assert (made.error, made.text) == ("record_too_large", b"")


LONG = PAGE + b" page" * 20


@pytest.mark.parametrize("cut", [1, 5, 20])
@pytest.mark.parametrize("kind", ["response", "conversion"])
@pytest.mark.parametrize("suffix", ["", ".gz", "members"])
def test_a_length_that_is_too_short_cuts_no_page(memory, monkeypatch, cut, kind, suffix):
    monkeypatch.setattr(read, "page_text", to_text)
    short = record(kind, LONG, 9, Content_Length=len(LONG) - cut)
    records = [PAGES[0], short, PAGES[1]]
    pack = gzip.compress if suffix == ".gz" else bytes
    data = pack(b"".join(records)) if suffix != "members" else b"".join(map(gzip.compress, records))
    name = f"a.warc{suffix}" if suffix != "members" else "a.warc.gz"
    one, bad, two = memory.rows(name, data)
    assert (one["text"], two["text"]) == ("page 0", "page 1")
    assert (bad["error"], bad["position"], bad["id"]) == (
        "corrupt_warc",
        len(PAGES[0]),
        "urn:uuid:9",
    )
    at = len(PAGES[0]) + short.index(b"\r\n\r\n") + 4 + len(LONG) - cut
    assert (
        f"Content-Length is {len(LONG) - cut}, but behind so many bytes, at {at}," in bad["detail"]
    )


@pytest.mark.parametrize(
    ("behind", "right"),
    [
        (b"\r\n\r\n", True),
        (b"\n\n", True),
        (b"\n", True),
        (b"", True),
        (b"\r\n\r\ngarbage\r\n", True),
        (bytes(9), False),
        (b"\r\nmore\r\n", False),
        (b" more", False),
    ],
)
def test_a_length_is_right_where_a_blank_line_a_record_or_nothing_follows(behind, right):
    whole = CRAWL[2].removesuffix(b"\r\n\r\n") + behind
    for data in (whole + CRAWL[4], whole, whole + CRAWL[4][:3], whole + CRAWL[4][:10]):
        first, *rest = [made for _, made in parse(data)]
        assert first.error == (None if right else "corrupt_warc")
        assert right or not any(made.error == "corrupt_warc" for made in rest)


def test_any_content_type_of_a_record_is_read():
    for value in ("text/plain; charset*=a\0b''c", "text/plain; charset*" + "9" * 5000 + "=x"):
        ((_, made),) = parse(record("conversion", b"text", Content_Type=value))
        assert (bytes(made.text), made.error) == (b"text", None)


@pytest.mark.parametrize("length", range(len(PAGE) + 9, len(PAGE) + 19))
@pytest.mark.parametrize("max_bytes", [52, 1000])
def test_a_length_that_ends_in_the_next_records_first_line_hides_it_not(length, max_bytes):
    data = record("response", PAGE + b"page", 1, Content_Length=length) + CRAWL[4]
    found = [(made.error, made.id) for _, made in parse(data, max_bytes)]
    assert found == [("corrupt_warc", "urn:uuid:1"), (None, "urn:uuid:2")]


def test_lax_line_ends_and_missing_ones_are_no_damage():
    bare = CRAWL[2].replace(b"\r\n", b"\n", 5)
    assert [made.text.decode() for _, made in parse(bare.rstrip() + b"\n" + CRAWL[4])] == [
        "page one",
        "téxt two",
    ]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_clipped_file_gives_what_it_has_and_one_error(memory, monkeypatch, suffix):
    monkeypatch.setattr(read, "page_text", to_text)
    pages = [record("response", PAGE + b"page %d" % n * 50, n) for n in range(20)]
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    data = b"".join(map(pack, pages))
    whole = memory.rows(f"a.warc{suffix}", data, 100)
    assert [row["url"] for row in whole] == [f"http://example.org/{n}" for n in range(20)]
    cut = len(b"".join(map(pack, pages[:7])))
    *good, last = memory.rows(f"a.warc{suffix}", data[: cut + len(pack(pages[7])) // 2])
    assert good == whole[:7]
    reason = {"": "warc", ".gz": "gzip", ".zst": "zstd"}[suffix]
    assert (last["error"], last["text"]) == (f"truncated_{reason}", None)
    assert last["position"] == whole[7]["position"]


def test_wet_files_need_no_extraction(memory):
    (row,) = memory.rows("crawl.warc.wet.gz", gzip.compress(CRAWL[0] + CRAWL[4]))
    assert (row["text"], row["id"]) == ("téxt two", "urn:uuid:2")


LENGTHS = [record("response", PAGE + b"page", 7, Content_Length=n) for n in (40, 400, 1200, 4000)]


@given(
    st.lists(st.sampled_from([*CRAWL, *LENGTHS, b"\r\n", b"WARC/1.0\r\n", b"WARC/", b"\x00\xff"])),
    st.integers(1, 90),
    st.sampled_from([100, 1000]),
)
def test_no_bytes_crash_and_positions_rise(parts, piece, max_bytes):
    rows = parse(b"".join(parts), max_bytes, piece=piece)
    positions = [at for at, _ in rows]
    assert positions == sorted(set(positions))
    assert rows == parse(b"".join(parts), max_bytes, piece=10**6)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(60, 3000)), max_size=12),
    st.sampled_from([60, 9999]),
)
def test_a_record_with_a_right_length_is_found_behind_any_wrong_ones(parts, max_bytes):
    records = [
        record("response", PAGE + b"page", n, **({"Content_Length": length} if wrong else {}))
        for n, (wrong, length) in enumerate([*parts, (False, 0)])
    ]
    data = b"".join(records)
    at = [sum(map(len, records[:k])) for k in range(len(records))]
    found = {place: made.error for place, made in parse(data, max_bytes)}
    # A wrong length that ends where a record begins cannot be told from a right one.
    wrong_ends = {
        at[k] + records[k].index(b"\r\n\r\n") + 4 + length
        for k, (wrong, length) in enumerate(parts)
        if wrong
    }
    starts = {place - blank for place in (*at, len(data)) for blank in range(5)}
    if not wrong_ends & starts:
        assert sorted(found) == at
        assert [error is None for error in found.values()] == [
            not wrong for wrong, _ in [*parts, (False, 0)]
        ]


LOOK_ALIKE = bytes(range(48, 123)) * 3
MANY = [record("response", PAGE + b"page %d " % n + LOOK_ALIKE * (n % 5), n) for n in range(12)]


@given(st.integers(0, 11), st.integers(0, 10**6), st.integers(0, 7), st.sampled_from([50, 10**6]))
def test_a_flipped_bit_costs_no_other_record_of_a_file_of_members(which, at, bit, max_bytes):
    members = [bytearray(gzip.compress(part, mtime=0)) for part in MANY]
    members[which][at % len(members[which])] ^= 1 << bit
    file = io.BytesIO(b"".join(members))

    def pieces():
        file.seek(0)
        return gzip_pieces(file, b"WARC/")

    items = list(warc_records(pieces, max_bytes, to_text))
    positions = [place for place, _, _ in items]
    assert positions == sorted(set(positions))
    rows = [made for _, _, made in items]
    whole = {(place, made.id): made for place, made in parse(b"".join(MANY), max_bytes)}
    for (_, id_), made in whole.items():
        if id_ != f"urn:uuid:{which}":
            assert made in rows
    try:  # whatever is lost has its reason
        member = zlib.decompressobj(wbits=31)
        damaged = member.decompress(members[which]) != MANY[which] or not member.eof
    except zlib.error:
        damaged = True
    reasons = {made.error for made in rows} & {"corrupt_gzip", "truncated_gzip"}
    assert bool(reasons) == damaged


@pytest.mark.parametrize(
    "broken", [b"garbage", gzip.compress(MANY[0])[:60] + b"\xff" * 9], ids=["", "cut"]
)
def test_behind_damage_nothing_is_lost_without_a_row(memory, monkeypatch, broken):
    """Also where lines that are no record, which are a row, come before it."""
    monkeypatch.setattr(read, "page_text", to_text)
    junk = gzip.compress(b"no record\r\nat all\r\n")
    for behind in (b"", gzip.compress(b"one of another kind")):
        data = gzip.compress(MANY[1]) + junk + broken + behind
        rows = memory.rows("a.warc.gz", data)
        assert [row["error"] for row in rows] == [None, "corrupt_warc", "corrupt_gzip"]
        assert "; nothing behind it can be read" in rows[2]["detail"]
        (_, lines, gap, two) = memory.rows("a.warc.gz", data + gzip.compress(MANY[2]))
        at = len(data)
        assert (lines["error"], gap["error"]) == ("corrupt_warc", "corrupt_gzip")
        assert f"with the member that begins at byte {at} of the file" in gap["detail"]
        assert (two["id"], two["error"]) == ("urn:uuid:2", None)


def test_damage_that_runs_into_the_next_member_hides_it_not(memory, monkeypatch):
    monkeypatch.setattr(read, "page_text", to_text)
    stored = bytearray(gzip.compress(MANY[0], 0, mtime=0))
    at = stored.index(b"WARC/") - 4  # the block's length
    stored[at : at + 4] = b"\x00\x04\xff\xfb"  # 1024: two records and a half
    rows = memory.rows("a.warc.gz", bytes(stored) + b"".join(map(gzip.compress, MANY[1:])))
    assert [row["id"] for row in rows if not row["error"]][-11:] == [
        f"urn:uuid:{n}" for n in range(1, 12)
    ]
    assert "corrupt_gzip" in [row["error"] for row in rows]


def test_many_damaged_members_are_read_in_linear_work(monkeypatch):
    """Each is found in the one before it, and ends where all of them do."""
    monkeypatch.setattr("pipelines.readers.streams._READ_AGAIN_BYTES", 1 << 20)
    head = gzip.compress(b"", mtime=0)[:10]
    nested = (head + b"\x00\xff\xff\x00\x00WARC/1.0\r\n") * 20_000
    read_bytes = [0]

    class Counting(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            read_bytes[0] += len(data)
            return data

    file = Counting(nested)
    rows = [made for _, _, made in warc_records(lambda: gzip_pieces(file, b"WARC/"), 99, to_text)]
    assert {made.error for made in rows} <= {"corrupt_gzip", "truncated_gzip", "corrupt_warc"}
    assert read_bytes[0] <= 60 * len(nested)


@pytest.mark.parametrize("size", [True, False])
def test_a_damaged_frame_costs_no_other_record_of_a_file_of_frames(memory, monkeypatch, size):
    monkeypatch.setattr(read, "page_text", to_text)
    compressor = zstandard.ZstdCompressor(write_content_size=size, write_checksum=True)
    frames = [bytearray(compressor.compress(part)) for part in MANY]
    for place in (-1, 40):  # the checksum; the content
        damaged = list(map(bytearray, frames))
        damaged[3][place] ^= 0xFF
        rows = memory.rows("a.warc.zst", b"".join(damaged))
        assert len({row["position"] for row in rows}) == len(rows)
        assert {row["id"] for row in rows if not row["error"]} >= {
            f"urn:uuid:{n}" for n in range(12) if n != 3
        }
        assert "corrupt_zstd" in [row["error"] for row in rows]


@pytest.mark.parametrize("bit", [62, 63])
def test_a_frame_that_states_a_huge_size_costs_no_other_record(memory, monkeypatch, bit):
    """Its records were behind the largest number: the job ended."""
    monkeypatch.setattr(read, "page_text", to_text)
    frames = [zstandard.compress(part) for part in MANY]
    for which in (3, 5):
        blocks = frames[which][6 + (frames[which][4] >> 6) :]
        frames[which] = b"\x28\xb5\x2f\xfd\xc0\x50" + (1 << bit).to_bytes(8, "little") + blocks
    rows = memory.rows("a.warc.zst", b"".join(frames))
    assert [row["error"] for row in rows].count("corrupt_zstd") == 2
    good = {row["id"] for row in rows if not row["error"]}
    assert good >= {f"urn:uuid:{n}" for n in range(12) if n not in {3, 5}}


def test_a_byte_order_mark_hides_no_record(memory, monkeypatch):
    monkeypatch.setattr(read, "page_text", to_text)
    rows = memory.rows("a.warc", b"\xef\xbb\xbf" + CRAWL[2] + CRAWL[4])
    assert [(row["position"], row["error"]) for row in rows] == [
        (0, None),
        (len(CRAWL[2]) + 3, None),
    ]
