import hashlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import CorruptError, DatasetError
from shards.hashing import BLOCK_BYTES
from shards.tokens import (
    TokenMetadata,
    encode_token_shard,
    open_token_shard,
    shard_entry,
    token_dtype,
)

META = TokenMetadata("cd" * 32, 300, 2)


def rows(documents, **columns):
    return pa.table({**columns, "tokens": pa.array(documents, pa.list_(pa.int64()))})


def write(tmp_path, table, metadata=META):
    path = tmp_path / "shard.arrow"
    path.write_bytes(encode_token_shard(table, metadata))
    return path


documents_of = st.lists(
    st.lists(st.integers(3, 299), max_size=6).map(lambda ids: [*ids, 2]), max_size=6
)


@given(documents_of)
def test_round_trip(tmp_path_factory, documents):
    path = write(tmp_path_factory.mktemp("t"), rows(documents, n=list(range(len(documents)))))
    shard = open_token_shard(path)
    assert shard.metadata == META
    assert shard.batch.schema.names[-1] == "tokens"
    assert shard.batch.column("n").to_pylist() == list(range(len(documents)))
    assert shard.tokens.dtype == np.uint16
    assert [shard.tokens[start:end].tolist() for start, end in pairwise(shard.offsets)] == documents
    size = shard.tokens.nbytes
    stream = path.read_bytes()[shard.tokens_at : shard.tokens_at + size]
    assert stream == shard.tokens.tobytes()


def test_equal_columns_give_equal_bytes_however_they_are_held():
    documents = [[5, 2], [2], [7, 8, 2], [9, 2]]
    split = ["train", "valid", "train", "train"]
    score = pa.array([1.5, None, 2.5, None], pa.float32())
    flags = [True, False, None, True]
    plain = rows(documents, split=split, score=score, flag=flags)
    expected = bytes(encode_token_shard(plain, META))
    # The same rows as a slice of more, in chunks, dictionary-encoded, with rubbish under the nulls.
    rubbish = pa.array([1.5, 99.0, 2.5, 98.0], pa.float32())
    masked = pa.Array.from_buffers(
        pa.float32(), 4, [score.buffers()[0], rubbish.buffers()[1]], null_count=2
    )
    other = rows(documents, split=pa.array(split).dictionary_encode(), score=masked, flag=flags)
    for same in (
        pa.concat_tables([plain, plain]).slice(4),
        pa.concat_tables([plain, plain]).combine_chunks().slice(4),
        pa.concat_tables([plain.slice(0, 1), plain.slice(1)]),
        other,
        plain.replace_schema_metadata({"pandas": "{}"}),
    ):
        assert bytes(encode_token_shard(same, META)) == expected
    mapping = {"tokens": documents, "split": split, "score": score, "flag": flags}
    assert bytes(encode_token_shard(mapping, META)) == expected


def test_wide_vocabularies_take_uint32(tmp_path):
    assert token_dtype(1 << 16) == np.uint16
    assert token_dtype((1 << 16) + 1) == np.uint32
    wide = TokenMetadata("cd" * 32, 70000, 2)
    shard = open_token_shard(write(tmp_path, rows([[69999, 2]]), wide))
    assert shard.tokens.dtype == np.uint32
    assert shard.tokens.tolist() == [69999, 2]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([[5, 2], [5]], "row 1 does not end with EOS"),
        ([[2], [], [5, 2]], "row 1 does not end with EOS"),
        ([[300, 2]], "ids from 2 to 300 do not fit a vocabulary of 300"),
        ([[-1, 2]], "ids from -1 to 2"),
        ([[2], None], "1 documents have null tokens"),
    ],
)
def test_refuses_wrong_tokens(documents, message):
    with pytest.raises(DatasetError, match=message):
        encode_token_shard(rows(documents), META)


def test_refuses_a_table_without_tokens():
    with pytest.raises(DatasetError, match="needs a 'tokens' column"):
        encode_token_shard({"text": ["a"]}, META)


def test_touches_every_byte_but_the_stream_before_relying_on_it(tmp_path):
    path = write(tmp_path, rows([[5, 2]] * 100, n=list(range(100))))
    touched = np.zeros(path.stat().st_size, bool)
    shard = open_token_shard(path, lambda start, end: touched.__setitem__(slice(start, end), True))
    untouched = np.flatnonzero(~touched)
    stream = np.arange(shard.tokens_at, shard.tokens_at + shard.tokens.nbytes)
    np.testing.assert_array_equal(untouched, stream)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"not arrow at all, but long enough to be mapped",
        lambda data: data[:-1],
        lambda data: data[:40] + data[-10:],
        lambda data: data[:12] + b"\xff\xff\xff\x7f" + data[16:],
        lambda data: data[:-10] + b"\xff\xff\xff\x7f" + data[-6:],
        lambda data: data.replace(b"assay.vocab_size", b"assay.vocab_sizf"),
    ],
)
def test_a_file_that_is_no_token_shard_is_corrupt(tmp_path, spoil):
    path = write(tmp_path, rows([[5, 2]]))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptError, match=r"shard\.arrow"):
        open_token_shard(path)


def test_says_that_a_shard_is_missing_or_of_another_format(tmp_path):
    with pytest.raises(DatasetError, match="no such token shard"):
        open_token_shard(tmp_path / "none.arrow")
    path = write(tmp_path, rows([[5, 2]]))
    path.write_bytes(path.read_bytes().replace(b"assay.format", b"other.format"))
    with pytest.raises(DatasetError, match="format None, but this version"):
        open_token_shard(path)


def test_entry_describes_the_bytes():
    data = bytes(BLOCK_BYTES) + b"rest"
    entry = shard_entry("tokens/a.arrow", data, documents=3, tokens=9, first_token=4)
    assert (entry.bytes, len(entry.blocks)) == (len(data), 2)
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert (entry.documents, entry.tokens, entry.first_token) == (3, 9, 4)
