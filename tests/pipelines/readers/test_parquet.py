import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import Fields
from shards.errors import InputError


def parquet(columns: dict, group: int = 1 << 20, **kwargs) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=group, **kwargs)
    return sink.getvalue()


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4000), st.integers(1, 500))
def test_ranges_of_any_size_give_every_row_once(memory, n, group, range_bytes, batch_bytes):
    texts = [f"text {row}" for row in range(n)]
    data = parquet({"text": texts, "id": list(range(n))}, group)
    rows = memory.rows("x.parquet", data, range_bytes, batch_bytes=batch_bytes)
    assert [row["position"] for row in rows] == list(range(n))
    assert [row["text"] for row in rows] == texts
    assert [row["id"] for row in rows] == list(map(str, range(n)))


def test_ranges_are_row_groups(memory):
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    data = parquet({"text": ["a" * 1000] * 10}, 2, **plain)
    ranges = memory.plan("x.parquet", data, 3000)
    assert [(r.start, r.end, r.offset) for r in ranges] == [(0, 4, 0), (4, 8, 2), (8, 10, 4)]
    assert sum(range_.bytes for range_ in ranges) <= len(data)
    assert memory.plan("x.parquet", parquet({"text": pa.array([], pa.string())})) == []


def test_bad_rows(memory):
    bad = pa.array([b"good", b"\xffab", None, b"", b" \n", b"x" * 99, b"\xc3\xa9"], pa.binary())
    offsets, data = bad.buffers()[1:]
    texts = pa.StringArray.from_buffers(len(bad), offsets, data, bad.buffers()[0])
    rows = memory.rows("x.parquet", parquet({"text": texts}), max_record_bytes=50)
    assert [row["text"] for row in rows] == ["good", None, None, None, None, None, "é"]
    assert [row["error"] for row in rows] == [
        None,
        "bad_utf8",
        "missing_text",
        "empty_text",
        "empty_text",
        "record_too_large",
        None,
    ]
    assert rows[1]["detail"] == "invalid start byte at byte 0 of the text of row 1"
    assert rows[5]["detail"] == "the text has 99 bytes, above 50"


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()])
def test_text_types(memory, type_):
    sources = pa.array(["s", "s", None]).dictionary_encode()
    table = {"body": pa.array(["é", "b", "c"], type_), "source": sources, "url": [1.5, None, 2.0]}
    rows = memory.rows("x.parquet", parquet(table, 2), fields=Fields(text_field="body"))
    assert [row["text"] for row in rows] == ["é", "b", "c"]
    assert [row["source"] for row in rows] == ["s", "s", None]
    assert [row["url"] for row in rows] == ["1.5", None, "2"]


def test_ids_of_bytes_stay_apart(memory):
    raw = [bytes([0x80 + n]) + b"\x01" * 15 for n in range(2)]
    for type_, shown in (
        (
            pa.uuid(),
            ["80010101-0101-0101-0101-010101010101", "81010101-0101-0101-0101-010101010101"],
        ),
        (pa.binary(16), [value.hex() for value in raw]),
        (pa.binary(), [value.hex() for value in raw]),
    ):
        rows = memory.rows("x.parquet", parquet({"text": ["a", "b"], "id": pa.array(raw, type_)}))
        assert [row["id"] for row in rows] == shown
    (row,) = memory.rows("x.parquet", parquet({"text": ["a"], "id": [b"page 1"]}))
    assert row["id"] == "page 1"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, "no column 'text'; the columns are body; set input.text_field"),
        ({"text": [1]}, "the column 'text' is int64, not string"),
        ({"text": ["a"], "id": [[1]]}, "the column 'id' is list"),
        (pa.table([["a"], ["b"]], ["text", "text"]), "has 2 columns 'text'"),
    ],
)
def test_columns_are_checked_when_planned(memory, columns, message):
    with pytest.raises(InputError, match=rf"x\.parquet: {message}"):
        memory.plan("x.parquet", parquet(columns))


def test_a_clipped_file_is_refused(memory):
    with pytest.raises(InputError, match=r"x\.parquet: not a readable Parquet file .*clipped"):
        memory.plan("x.parquet", parquet({"text": ["a" * 1000]})[:-20])


def test_a_damaged_page_costs_its_row_group_only(memory):
    noise = np.random.default_rng(0).integers(97, 123, (6, 5000), np.uint8)
    texts = [row.tobytes().decode() for row in noise]
    data = parquet({"text": texts}, 2, compression="zstd", use_dictionary=False)
    where = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).data_page_offset
    broken = data[: where + 200] + bytes(2000) + data[where + 2200 :]
    for range_bytes in (1, 1 << 20):
        rows = memory.rows("x.parquet", broken, range_bytes)
        assert [row["position"] for row in rows] == [0, 1, 2, 4, 5]
        assert [row["error"] for row in rows] == [None, None, "corrupt_parquet", None, None]
        assert rows[2]["detail"].startswith("rows 2 to 3 (row group 1): ")
