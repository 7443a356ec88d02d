import gzip
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.streams import PIECE_BYTES, Gap, gzip_pieces, plain_pieces

LINES = b"".join(b'{"text": "document %d"}\n' % number for number in range(2000))


def split(pieces):
    """Separate what was decoded from the gaps."""
    items = list(pieces)
    gaps = [item for item in items if isinstance(item, Gap)]
    return b"".join(item for item in items if not isinstance(item, Gap)), gaps


def test_plain_begins_where_told():
    assert split(plain_pieces(io.BytesIO(LINES), 5)) == (LINES[5:], [])


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 600))
def test_members_and_padding(members, padding):
    data = b"".join(map(gzip.compress, members)) + b"\0" * padding
    assert split(gzip_pieces(io.BytesIO(data))) == (b"".join(members), [])


@pytest.mark.parametrize("cut", [0, 1, 5, 100, 1000, -9, -8, -1])
def test_truncated(cut):
    data = gzip.compress(LINES)[:cut]
    decoded, (gap,) = split(gzip_pieces(io.BytesIO(data)))
    assert gap == Gap(
        "truncated_gzip", f"the file ends inside a gzip member, at byte {len(data)}", None
    )
    assert decoded == zlib.decompressobj(wbits=31).decompress(data)


def test_nothing_before_damage_is_lost():
    data = bytearray(gzip.compress(LINES, 1))
    data[len(data) // 2] ^= 0x55
    decoded, (gap,) = split(gzip_pieces(io.BytesIO(data)))
    assert gap.reason == "corrupt_gzip"
    assert gap.resume is None
    assert len(decoded) > len(LINES) // 4


def test_a_wrong_checksum_costs_no_content():
    data = bytearray(gzip.compress(LINES))
    data[-8] ^= 1
    decoded, (gap,) = split(gzip_pieces(io.BytesIO(data)))
    assert decoded == LINES
    assert gap.reason == "corrupt_gzip"
    assert "incorrect data check" in gap.detail


def test_something_else_behind_the_last_member():
    decoded, (gap,) = split(gzip_pieces(io.BytesIO(gzip.compress(LINES) + b"\0\0PAR1")))
    assert (decoded, gap.reason) == (LINES, "corrupt_gzip")


def test_a_bomb_comes_in_bounded_pieces():
    size = 64 << 20
    pieces = list(gzip_pieces(io.BytesIO(gzip.compress(bytes(size), 9))))
    assert sum(map(len, pieces)) == size
    assert max(map(len, pieces)) <= PIECE_BYTES
