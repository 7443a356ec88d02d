import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shards.hashing import (
    BLOCK_BYTES,
    block_hashes,
    canonical_json,
    file_xxh128,
    stable_hash,
    xxh128,
)


class Point(msgspec.Struct):
    y: int
    x: int


def test_canonical_json_sorts_keys_and_keeps_text():
    assert canonical_json({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'.encode()
    assert canonical_json(Point(y=1, x=2)) == b'{"x":2,"y":1}'


@given(st.dictionaries(st.text(), st.integers(-(2**62), 2**62)))
def test_stable_hash_ignores_the_order_of_keys(table):
    assert stable_hash(table) == stable_hash(dict(reversed(table.items())))


def test_known_values():
    # sha256 of the two bytes "{}", and XXH3-128 of nothing, from their reference implementations.
    assert stable_hash({}) == "44136fa355b3678a1146ad16f7e8649e"
    assert xxh128(b"").hex() == "99aa06d3014798d86001c324468d497f"


def test_blocks_cover_the_data_and_locate_a_change(tmp_path):
    data = bytearray(2 * BLOCK_BYTES + 5)
    before = block_hashes(bytes(data))
    assert len(before) == 3
    data[BLOCK_BYTES] = 1
    after = block_hashes(memoryview(data))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert block_hashes(b"") == []
    (tmp_path / "file").write_bytes(data)
    assert file_xxh128(tmp_path / "file") == xxh128(bytes(data))
