from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.lines import lines
from pipelines.readers.streams import Gap

CONTENT = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r\n", b"\n\n", b"a" * 20]), max_size=30)


def reference(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    for line in _split(data):
        found.append((at, line.removesuffix(b"\n")))
        at += len(line)
    return found


def _split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def pieces_from(data: bytes, start: int, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(max(start - 1, 0), len(data), size)]


@given(CONTENT, st.integers(1, 50), st.integers(1, 50))
def test_ranges_of_any_size_give_every_line_once(content, range_bytes, piece_bytes):
    data = b"".join(content)
    found = []
    for start in range(0, len(data), range_bytes):
        pieces = pieces_from(data, start, piece_bytes)
        found += lines(pieces, start, min(start + range_bytes, len(data)), 1000)
    assert found == reference(data)


@given(CONTENT, st.integers(1, 50), st.integers(1, 50), st.integers(0, 25))
def test_long_lines_are_errors_wherever_the_pieces_end(content, range_bytes, piece_bytes, limit):
    data = b"".join(content)
    found = []
    for start in range(0, len(data), range_bytes):
        pieces = pieces_from(data, start, piece_bytes)
        found += lines(pieces, start, start + range_bytes, limit)
    gap = Gap("record_too_large", f"the record is longer than {limit} bytes", None)
    assert found == [(at, line if len(line) <= limit else gap) for at, line in reference(data)]


def test_a_long_line_is_never_held():
    read = 0

    def endless():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"a" * 10
        yield b"\nlast"

    (first, gap), last = lines(endless(), 0, 1 << 40, 50)
    assert (first, gap.reason, last) == (0, "record_too_large", (10_001, b"last"))
    read = 0
    assert len(list(lines(endless(), 0, 5, 50))) == 1
    assert read == 6  # what lies behind the range is not read to its end


def test_a_gap_takes_the_place_of_the_line_it_cuts():
    gap = Gap("corrupt_zstd", "", 20)
    pieces = [b"one\ntw", gap, b"o\nthree\n"]
    assert list(lines(pieces, 0, 100, 50)) == [(0, b"one"), (4, gap), (22, b"three")]
    assert list(lines([b"ne\ntw", gap, b"o\nthree\n"], 2, 100, 50)) == [(4, gap), (22, b"three")]


def test_a_gap_before_the_range_has_a_line_belongs_to_somebody_else():
    gap = Gap("corrupt_zstd", "", 20)
    assert list(lines([b"ne", gap, b"o\nthree"], 2, 100, 50)) == [(22, b"three")]
    assert list(lines([b"ne", gap._replace(resume=None)], 2, 100, 50)) == []
