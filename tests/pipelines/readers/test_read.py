import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

RECORDS = st.lists(
    st.sampled_from(
        [
            b'{"text": "one"}',
            b'{"text": "tw\\u00f6", "id": 1}',
            b'{"text": "three \xe2\x82\xac"}\r',
            b"",
            b"  ",
            b"{",
            b'{"text": "\xff"}',
        ]
    ),
    max_size=20,
)


def joined(lines: list[bytes], *, final: bool) -> bytes:
    return b"\n".join(lines) + (b"\n" if final and lines else b"")


def zstd_frames(data: bytes, frame_bytes: int, **kwargs) -> bytes:
    compress = zstandard.ZstdCompressor(**kwargs).compress
    return b"".join(
        compress(data[at : at + frame_bytes]) for at in range(0, max(len(data), 1), frame_bytes)
    )


@given(RECORDS, st.booleans(), st.tuples(*[st.integers(1, 60)] * 3))
def test_cuts_and_compression_change_nothing(memory, lines, final, sizes):
    range_bytes, frame_bytes, batch_bytes = sizes
    data = joined(lines, final=final)
    records = [(at, line) for at, line in _lines(data) if line.strip()]
    whole = memory.rows("a.jsonl", data)
    assert [row["position"] for row in whole] == [at for at, _ in records]
    assert [row["error"] is None for row in whole] == [
        b"text" in line and b"\xff" not in line for _, line in records
    ]
    for path, packed in (
        ("b.jsonl", data),
        ("c.jsonl.gz", gzip.compress(data)),
        ("d.jsonl.zst", zstd_frames(data, frame_bytes)),
    ):
        assert memory.rows(path, packed, range_bytes, batch_bytes=batch_bytes) == whole


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    for line in data.split(b"\n"):
        found.append((at, line))
        at += len(line) + 1
    return found


def documents(count: int) -> bytes:
    return b"".join(json.dumps({"text": f"document {n}"}).encode() + b"\n" for n in range(count))


def test_multi_frame_zstd_is_split_at_frames_and_read_once(memory):
    data = documents(1000)
    packed = zstd_frames(data, 1000)
    ranges = memory.plan("a.jsonl.zst", packed, 3000)
    assert len(ranges) == -(-len(data) // 3000)
    assert sum(range_.bytes for range_ in ranges) == len(packed)
    assert [r.start for r in ranges[1:]] == [1 + 3000 * k for k in range(1, len(ranges))]
    assert len(memory.plan("a.jsonl.zst", zstd_frames(data, 1000, write_content_size=False))) == 1


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_clipped_file_gives_what_it_has_and_one_error(memory, kind):
    data = documents(5000)
    packed = gzip.compress(data) if kind == "gz" else zstd_frames(data, 40_000, level=1)
    reason = {"gz": "truncated_gzip", "zst": "truncated_zstd"}[kind]
    whole = memory.rows("a.jsonl", data)
    for cut in (len(packed) // 3, len(packed) - 1, 3, 0):
        for range_bytes in (10_000, 1 << 30):
            *good, last = memory.rows(f"a.jsonl.{kind}", packed[:cut], range_bytes)
            assert good == whole[: len(good)]
            assert (last["error"], last["text"]) == (reason, None)
            ends = [row["position"] for row in whole] + [len(data)]
            assert last["position"] == ends[len(good)]


def test_damage_in_one_frame_gives_the_same_rows_for_every_range_size(memory):
    data = documents(5000)
    frames = [
        zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data[at : at + 20_000])
        for at in range(0, len(data), 20_000)
    ]
    for which, where in ((0, 50), (2, -1), (2, 50), (len(frames) - 1, -2)):
        broken = bytearray(frames[which])
        broken[where] ^= 0xFF
        packed = b"".join([*frames[:which], bytes(broken), *frames[which + 1 :]])
        rows = memory.rows("a.jsonl.zst", packed, 1)
        assert rows == memory.rows("a.jsonl.zst", packed, 45_000)
        assert rows == memory.rows("a.jsonl.zst", packed, 1 << 30)
        (bad,) = [row for row in rows if row["error"]]
        assert bad["error"] == "corrupt_zstd"
        assert which * 20_000 - 50 < bad["position"] <= (which + 1) * 20_000
        # A flipped literal is noticed by the checksum only, when the frame's records are out.
        known = (which + (where < 0)) * 20_000 - 50
        good = [row for row in memory.rows("a.jsonl", data) if row["position"] < known]
        assert rows[: len(good)] == good
        assert (which + 1) * 20_000 >= len(data) or rows[-1]["text"] == "document 4999"


@pytest.mark.parametrize("size", [1 << 63, 1 << 62, 1 << 40, 3000, 700_000])
@pytest.mark.parametrize("single_segment", [False, True])
def test_a_frame_that_states_a_wrong_size_costs_no_other(memory, size, single_segment):
    """What it says moves what is behind it, at most by what its blocks can hold."""

    def frame(content, size):
        blocks = [content[at : at + 9000] for at in range(0, len(content), 9000)]
        raw = [
            (len(block) << 3 | (at == len(blocks) - 1)).to_bytes(3, "little") + block
            for at, block in enumerate(blocks)
        ]
        head = b"\xe0" if single_segment else b"\xc0\x50"
        return b"\x28\xb5\x2f\xfd" + head + size.to_bytes(8, "little") + b"".join(raw)

    data = documents(5000)
    cut = data.index(b"\n", 30_000) + 1, data.index(b"\n", 60_000) + 1
    parts = [data[: cut[0]], data[cut[0] : cut[1]], data[cut[1] :]]
    sizes = [len(parts[0]), size, len(parts[2])]
    packed = b"".join(map(frame, parts, sizes))
    rows = memory.rows("a.jsonl.zst", packed, 1 << 30)
    if size > 3000:  # else zstd's buffers decide how much it decodes of the frame itself
        assert rows == memory.rows("a.jsonl.zst", packed, 1)
    assert [row["position"] for row in rows] == sorted({row["position"] for row in rows})
    whole = [row["id"] for row in memory.rows("a.jsonl", data)]
    behind = data[: cut[1]].count(b"\n") + 1  # the line behind damage is no line
    assert [row["id"] for row in rows][-len(whole[behind:]) :] == whole[behind:]
    assert [row["error"] for row in rows if row["error"]] == ["corrupt_zstd"]


def test_a_text_file_is_one_document(memory):
    text = "First line\n\nSecond é\n"
    for path, data in (
        ("a.txt", text.encode()),
        ("a.md", b"\xef\xbb\xbf" + text.encode()),
        ("a.txt.gz", gzip.compress(text.encode())),
        ("a.txt.zst", zstd_frames(text.encode(), 5)),
    ):
        (row,) = memory.rows(path, data, 3)
        assert (row["position"], row["text"], row["error"]) == (0, text, None)


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("a.txt", b"", "empty_text"),
        ("a.txt", b"ab\xff", "bad_utf8"),
        ("a.txt", b"a" * 101, "record_too_large"),
        ("a.txt.gz", gzip.compress(b"abc")[:-1], "truncated_gzip"),
        ("a.txt.zst", zstd_frames(b"abc", 10)[:-1], "truncated_zstd"),
    ],
)
def test_a_text_file_that_cannot_be_read_is_one_error(memory, path, data, reason):
    (row,) = memory.rows(path, data, max_record_bytes=100)
    assert (row["position"], row["text"], row["error"]) == (0, None, reason)


def test_text_lines_must_be_asked_for(memory):
    data = b"\xef\xbb\xbfone\r\n\n \ntwo\nb\xffad\nthree"
    rows = memory.rows("a.txt", data, 2, format="text-lines")
    assert [(row["position"], row["text"]) for row in rows] == [
        (0, "one"),
        (11, "two"),
        (15, None),
        (20, "three"),
    ]
    assert rows[2]["detail"] == "invalid start byte at byte 16, in b'b\\xffad'"


def test_an_empty_jsonl_file_has_no_ranges(memory):
    assert memory.plan("a.jsonl", b"") == []


def test_batches_are_bounded(memory):
    from pipelines.readers import read_range

    (range_,) = memory.plan("a.jsonl", documents(1000))
    sizes = [batch.num_rows for batch in read_range(range_, memory.open, batch_bytes=1000)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 50
