import pyarrow as pa
import pytest

from tokenizer.account import Account, account_by_language, account_by_source
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


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
@pytest.mark.parametrize("name", ["language", "lang"])
def test_counts_per_language_where_documents_state_it(tokenizer, make_table, name, kind):
    table = make_table(["one", "é", "two"])
    languages = pa.array(["en", None, "en"], pa.string()).cast(kind)
    encoded = encode_table(table.append_column(name, languages), tokenizer, ["code"])
    lengths = [len(ids) for ids in encoded["tokens"].to_pylist()]
    assert account_by_language(encoded) == {
        "en": Account(2, 6, lengths[0] + lengths[2]),
        "unknown": Account(1, 2, lengths[1]),
    }


def test_a_column_that_is_no_text_is_no_language(tokenizer, make_table):
    table = make_table(["one"]).append_column("lang", pa.array([0.5]))
    assert account_by_language(encode_table(table, tokenizer, ["code"])) == {}
