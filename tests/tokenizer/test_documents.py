import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import CorruptError, DatasetError
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry
from tokenizer import documents
from tokenizer.documents import encode_table, read_documents


def test_columns_of_kept_and_dropped_documents_are_the_same(tokenizer, make_table):
    kept = encode_table(make_table(["one", "twö  "]), tokenizer, ["code", "web"])
    dropped = encode_table(make_table(["three"], reasons=["too_short"]), tokenizer, ["code", "web"])
    assert kept.schema == dropped.schema
    assert kept.column_names == [
        "doc_id", "source_id", "split", "dropped", "bytes", "zstd_bpb", "tokens"
    ]  # fmt: skip
    assert kept["bytes"].to_pylist() == [3, 6]
    assert kept["dropped"].to_pylist() == ["", ""]
    assert dropped["dropped"].to_pylist() == ["too_short"]
    assert kept["source_id"].to_pylist() == [0, 0]
    assert [tokenizer.decode(ids) for ids in kept["tokens"].to_pylist()] == ["one", "twö  "]


def test_a_token_shard_takes_the_columns_as_they_are(tokenizer, make_table):
    metadata = TokenMetadata(tokenizer.sha256, tokenizer.vocab_size, tokenizer.eos_id)
    table = encode_table(make_table(["one", ""]), tokenizer, ["code"])
    assert len(encode_token_shard(table, metadata)) > 0


@pytest.mark.parametrize("batch_bytes", [1, 50, 10**9])
def test_batches_do_not_show(tokenizer, make_table, texts, monkeypatch, batch_bytes):
    table = make_table(["", *texts[:30], "\u2581", ""])
    expected = encode_table(table, tokenizer, ["code"])
    monkeypatch.setattr(documents, "_BATCH_BYTES", batch_bytes)
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    assert encode_table(chunked, tokenizer, ["code"]).equals(expected)


def test_no_documents_give_no_rows(tokenizer, make_table):
    table = encode_table(make_table([]), tokenizer, ["code"])
    assert table.num_rows == 0
    assert table.schema == encode_table(make_table(["a"]), tokenizer, ["code"]).schema


def test_a_document_that_loses_text_is_named(tokenizer, make_table, monkeypatch):
    table = make_table(["fine", "lost"])

    def lossy(self, texts, **kwargs):
        ids, offsets = encode(self, texts, **kwargs)
        ids[offsets[1]] += 1
        return ids, offsets

    encode = type(tokenizer).encode_batch
    monkeypatch.setattr(type(tokenizer), "encode_batch", lossy)
    with pytest.raises(DatasetError, match=f"document {table['doc_id'][1].as_py().hex()}: its tok"):
        encode_table(table, tokenizer, ["code"])


def test_an_unknown_source_is_named(tokenizer, make_table):
    with pytest.raises(DatasetError, match=r"source 'code' is not among .*\['web'\]"):
        encode_table(make_table(["a"]), tokenizer, ["web"])


def test_more_sources_than_fit_are_refused(tokenizer, make_table):
    sources = [f"{number:05}" for number in range(1 << 16)]
    assert encode_table(make_table([]), tokenizer, sources).num_rows == 0
    with pytest.raises(DatasetError, match=r"65,537 sources .* at most 65,536 apart"):
        encode_table(make_table([]), tokenizer, [*sources, "x"])


def test_shards_are_checked_before_they_are_read(make_table):
    sink = io.BytesIO()
    pq.write_table(make_table(["some text"] * 5), sink)
    data = sink.getvalue()
    entry = shard_entry("kept/x.parquet", data, documents=5)
    assert read_documents(data, entry, ["text"])["text"].to_pylist() == ["some text"] * 5

    flipped = bytearray(data)
    flipped[40] ^= 1
    with pytest.raises(CorruptError, match=r"kept/x\.parquet: block 0"):
        read_documents(bytes(flipped), entry)
    with pytest.raises(CorruptError, match=r"kept/x\.parquet: block 0"):
        read_documents(data[:-1], entry)


def test_a_shard_that_ends_at_a_block_is_too_short(make_table):
    data = bytes(2 << 20)
    entry = shard_entry("kept/x.parquet", data, documents=5)
    with pytest.raises(CorruptError, match="1048576 bytes, the manifest states 2097152"):
        read_documents(data[: 1 << 20], entry)
