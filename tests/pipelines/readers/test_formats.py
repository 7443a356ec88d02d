import pickle

import pytest

from pipelines.readers import plan_ranges
from pipelines.readers.formats import detect
from shards.errors import InputError

GZIP = b"\x1f\x8b\x08\x00"
ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.jsonl", b'{"te', ("jsonl", "none")),
        ("A.JSONL", b"", ("jsonl", "none")),
        ("a.json.gz", GZIP, ("jsonl", "gzip")),
        ("a.jsonl.zst", ZSTD, ("jsonl", "zstd")),
        ("a.jsonl.zst", b"\x5a\x2a\x4d\x18", ("jsonl", "zstd")),  # a skippable frame first
        ("a.ndjson", b'{"te', ("jsonl", "none")),
        ("a.txt", b"text", ("text", "none")),
        ("a.txt.gz", GZIP, ("text", "gzip")),
        ("a.txt.zst", ZSTD, ("text", "zstd")),
        ("a.md", b"# a\n", ("text", "none")),
        ("a.parquet", b"PAR1", ("parquet", "none")),
        ("gs://bucket/v1.0/a.jsonl", b'{"te', ("jsonl", "none")),
    ],
)
def test_auto_goes_by_suffix(memory, name, head, expected):
    memory.files[name] = head
    assert detect(name, "auto", len(head), memory.open) == expected


def test_a_named_format_needs_no_suffix(memory):
    memory.files["corpus.gz"] = GZIP
    assert detect("corpus.gz", "text-lines", 4, memory.open) == ("text-lines", "gzip")


@pytest.mark.parametrize("name", ["a.csv", "a", "a.gz", "dir.jsonl/a"])
def test_unknown_suffix_names_file_and_formats(memory, name):
    memory.files[name] = b"abcd"
    with pytest.raises(
        InputError, match=rf"{name}: unknown format; .*\.jsonl.*\.parquet.*'text-lines'"
    ):
        detect(name, "auto", 4, memory.open)


def test_unknown_format_name(memory):
    memory.files["a.csv"] = b"abcd"
    with pytest.raises(InputError, match=r"a\.csv: unknown format 'csv'; .* auto, jsonl, text"):
        detect("a.csv", "csv", 4, memory.open)


@pytest.mark.parametrize(
    ("name", "head", "found"),
    [
        ("a.jsonl.zst", GZIP, "says zstd, but the file begins with .*gzip"),
        ("a.jsonl.gz", ZSTD, "says gzip, but the file begins with .*zstd"),
        ("a.jsonl.gz", b'{"te', "says gzip, but .*neither gzip, zstd nor Parquet"),
        ("a.jsonl", GZIP, "says uncompressed text, but .*gzip"),
        ("a.txt", b"PAR1", "says uncompressed text, but .*parquet"),
        ("a.parquet", b'{"te', "says parquet, but .*neither"),
        ("a.parquet", b"", "not a Parquet file: 0 bytes"),
        ("a.parquet.gz", GZIP, "compressed Parquet"),
    ],
)
def test_first_bytes_must_fit_the_name(memory, name, head, found):
    memory.files[name] = head
    with pytest.raises(InputError, match=rf"{name}: .*{found}"):
        detect(name, "auto", len(head), memory.open)


def test_ranges_travel(memory):
    (range_,) = memory.plan("a.jsonl", b'{"text": "a"}\n')
    assert pickle.loads(pickle.dumps(range_)) == range_
    assert len({range_, pickle.loads(pickle.dumps(range_))}) == 1


def test_range_bytes_must_be_positive(memory):
    with pytest.raises(InputError, match="range_bytes = 0"):
        plan_ranges("a.jsonl", "auto", 0, memory.open, 0)
