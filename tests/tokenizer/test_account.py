import pyarrow as pa
import pytest

from tokenizer.account import Account, account_by_source
from tokenizer.documents import encode_table


def test_counts_documents_bytes_and_tokens_per_source(tokenizer, make_table):
    table = encode_table(
        pa.concat_tables([make_table(["one", "é"]), make_table([" "], source="web")]),
        tokenizer,
        ["code", "unused", "web"],
    )
    lengths = [len(ids) for ids in table["tokens"].to_pylist()]
    assert account_by_source(table, ["code", "unused", "web"]) == {
        "code": Account(2, 5, lengths[0] + lengths[1]),
        "web": Account(1, 1, lengths[2]),
    }


def test_adds_up_and_divides():
    both = Account(1, 10, 4) + Account(2, 20, 6)
    assert both == Account(3, 30, 10)
    assert both.bytes_per_token == pytest.approx(3.0)
    assert Account().bytes_per_token == 0.0
