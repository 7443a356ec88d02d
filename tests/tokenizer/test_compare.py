import io
import json

import pyarrow as pa
import pytest
import sentencepiece
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import DatasetError, InputError
from tokenizer.cli import tokenizer_command
from tokenizer.compare import _measure, compare, dataset_tables, file_tables
from tokenizer.config import TokenizerConfig
from tokenizer.model import Tokenizer
from tokenizer.train import train_model


@pytest.fixture(scope="module")
def small(texts):
    return Tokenizer(train_model(texts, TokenizerConfig(vocab_size=400)), "small")


@pytest.fixture(scope="module")
def lossy(texts):
    """sentencepiece as it comes: a normaliser, a dummy prefix, no byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        minloglevel=2,
    )
    return model.getvalue()


def test_sums_up_by_source_and_language(tokenizer, small, make_table):
    english, german = make_table(["one two", " three "]), make_table(["vier"], source="web")
    tables = [
        english.append_column("lang", pa.array(["en", "en"])),
        german.append_column("lang", pa.array([None], pa.string())),
    ]
    found = compare(tokenizer, small, tables)
    assert (found.a.vocab_size, found.b.name) == (600, "small")
    assert 0 < found.shared_pieces <= 400
    assert {name: (r.documents, r.bytes, r.words) for name, r in found.sources.items()} == {
        "code": (2, 14, 3),
        "web": (1, 4, 1),
    }
    tokens = [len(small.encode(text)) for text in ("one two", " three ", "vier")]
    assert found.languages["en"].b.tokens == tokens[0] + tokens[1]
    assert found.languages["en"].b.fertility == (tokens[0] + tokens[1] - 2) / 3
    assert found.languages["unknown"] == found.sources["web"]
    assert found.total.b.tokens == sum(tokens)
    assert found.total.b.bytes_per_token == 18 / sum(tokens)
    assert found.total.a.failures == found.total.b.failures == 0


def test_counts_what_does_not_come_back(tokenizer, lossy, make_table):
    with pytest.raises(DatasetError, match="loses text"):
        Tokenizer(lossy)
    found = compare(tokenizer, Tokenizer(lossy, lossy=True), [make_table(["a  b", "c\nd"])])
    assert (found.total.a.failures, found.total.b.failures) == (0, 2)


def test_documents_that_could_not_be_read_are_left_out(tokenizer, make_table):
    found = compare(tokenizer, tokenizer, [make_table([None], reasons=["bad_utf8"])])
    assert (found.total, found.sources) == (None, {})


@given(st.text(max_size=20))
def test_words_are_those_of_str_split(tokenizer, text):
    table = pa.table({"text": pa.array([text], pa.large_string())})
    assert _measure(table, tokenizer, tokenizer)[0, 2] == len(text.split())


def test_the_command_shows_a_table_or_json(tmp_path, model, small, texts, make_table, make_dataset):
    make_dataset(tmp_path / "data", [make_table(texts)])
    (tmp_path / "a.model").write_bytes(model)
    (tmp_path / "b.model").write_bytes(small._model)
    (tmp_path / "x.txt").write_text("some text")

    def invoke(*more):
        arguments = ["compare", str(tmp_path / "a.model"), str(tmp_path / "b.model"), *more]
        return CliRunner().invoke(tokenizer_command, arguments, catch_exceptions=False)

    facts = json.loads(invoke("--data", str(tmp_path / "data"), "--json").stdout)
    assert facts["total"] == facts["sources"]["code"]
    assert facts["total"]["a"]["bytes_per_token"] > facts["total"]["b"]["bytes_per_token"]
    shown = invoke("--text", str(tmp_path / "x.txt")).stdout
    assert "tok A" in shown
    assert "word A" in shown
    assert "pieces are in both" in shown
    assert json.loads(invoke("--json").stdout)["total"] is None
    assert invoke("--data", "x", "--text", "y").exit_code == 2


def test_names_of_sources_stay_whole_on_a_narrow_screen(
    tmp_path, model, texts, make_table, make_dataset, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "a.model").write_bytes(model)
    short, long = "wikipedia-en-2024-01", "-".join(["a-source-with-a-long-name"] * 4)
    make_dataset(tmp_path / "data", [make_table(texts, source=name) for name in (short, long)])
    a, data = str(tmp_path / "a.model"), str(tmp_path / "data")
    lines = CliRunner().invoke(tokenizer_command, ["compare", a, a, "--data", data]).stdout
    assert all(name in lines for name in (short, long))
    make_dataset(tmp_path / "short", [make_table(texts, source=short)])
    data = str(tmp_path / "short")
    lines = CliRunner().invoke(tokenizer_command, ["compare", a, a, "--data", data]).stdout
    rows = lines[lines.index("docu-") :].splitlines()
    assert short in lines
    assert max(len(row.rstrip()) for row in rows) <= 80


def test_refuses_what_is_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        list(file_tables([tmp_path / "x"]))
    with pytest.raises(InputError, match="cannot be read"):
        list(file_tables([tmp_path / "none"]))
    with pytest.raises(DatasetError, match="no such folder"):
        list(dataset_tables(tmp_path / "none"))
