"""`assay explain` on a small curated dataset."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.commands.explain import difference, explain_command, verdict
from pipelines.curate.job import curate
from pipelines.lookup import Lookup
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import CorruptError, DatasetError
from tests.pipelines.conftest import write_jsonl


@pytest.fixture
def dataset(corpus, tmp_path):
    table = {"input": {"paths": [str(corpus / "*")]}, "filters": {"presets": ["gopher"]}}
    curate(curate_recipe(table), str(tmp_path / "out"), JobOptions(quiet=True))
    return str(tmp_path / "out")


def ask(*arguments):
    done = CliRunner().invoke(explain_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def first(dataset, reason):
    import pyarrow.parquet as pq

    rows = pq.read_table(f"{dataset}/dropped").to_pylist()
    return next(row for row in rows if row["reason"] == reason)


def test_near_duplicate_names_its_match_and_shows_the_words_that_differ(dataset):
    row = first(dataset, "near_duplicate")
    text = ask(dataset, row["doc_id"].hex())
    assert f"near_duplicate of {row['matched'].hex()}" in text
    assert "edited" in text.split("differences")[1]


def test_rule_names_measure_and_threshold(dataset):
    row = first(dataset, "gopher_words_min")
    assert "gopher_words_min, measured 2, threshold 50" in ask(dataset, row["doc_id"].hex())


def test_json_holds_both_documents_and_the_input_file(dataset):
    row = first(dataset, "exact_duplicate")
    found = json.loads(ask(dataset, row["doc_id"].hex(), "--json"))
    assert found["document"]["matched"] == found["matched"]["doc_id"]
    assert found["document"]["text"] == found["matched"]["text"]
    assert found["document"]["path"].endswith((".jsonl", ".zst"))


def test_reason_lists_what_was_dropped_for_it(dataset):
    lines = ask(dataset, "--reason", "near_duplicate", "--limit", "3").splitlines()
    assert len(lines) == 3
    assert all("near_duplicate of" in line and " at byte " in line for line in lines)
    rows = [
        json.loads(line)
        for line in ask(dataset, "--reason", "gopher_words_min", "--json").splitlines()
    ]
    assert {row["reason"] for row in rows} == {"gopher_words_min"}
    with pytest.raises(DatasetError, match="did you mean 'near_duplicate'"):
        list(Lookup(dataset).dropped_for("near_duplicates", 5))


def test_a_records_own_id_comes_before_the_doc_ids_that_begin_so(tmp_path):
    records = [{"id": str(n), "text": f"document {n} of a few"} for n in range(64)]
    write_jsonl(tmp_path / "in.jsonl", records)
    recipe = curate_recipe({"input": {"paths": [str(tmp_path / "in.jsonl")]}})
    curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))
    for n in range(10):
        assert Lookup(str(tmp_path / "out")).find(str(n))["text"] == records[n]["text"]


def test_a_record_is_found_by_its_own_id_if_it_is_unique(dataset):
    # Both input files number their records from d0, so the id alone names two documents.
    with pytest.raises(DatasetError, match="2 documents match 'd3'"):
        Lookup(dataset).find("d3")


@pytest.mark.parametrize(("asked", "words"), [("zz", "no document 'zz'"), ("", "no document ''")])
def test_unknown_documents_are_errors(dataset, asked, words):
    with pytest.raises(DatasetError, match=words):
        Lookup(dataset).find(asked)


def test_what_a_document_holds_is_neither_markup_nor_an_order_to_the_terminal(tmp_path):
    hostile = {"id": "[/]", "source": "[red]s", "url": "[bold", "text": "[/x] \x1b[2J" + "w " * 60}
    write_jsonl(tmp_path / "in.jsonl", [hostile])
    table = {"input": {"paths": [str(tmp_path / "in.jsonl")]}}
    curate(curate_recipe(table), str(tmp_path / "out"), JobOptions(quiet=True))
    text = ask(str(tmp_path / "out"), "[/]")
    for value in ("[/]", "[red]s", "[bold", "[/x] \N{REPLACEMENT CHARACTER}[2J"):
        assert value in text
    assert "\x1b" not in text


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_shard_is_named(dataset, damage):
    damage(next(Path(dataset, "kept").iterdir()))
    with pytest.raises(CorruptError, match=r"kept/00000-of-00001\.parquet: (is missing|cannot)"):
        ask(dataset, "d3")


def test_a_flipped_bit_is_found_before_its_text_is_shown(dataset):
    row = first(dataset, "near_duplicate")
    shard = next(Path(dataset, "dropped").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1  # in a column's values: the footer stands at the end
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match=r"dropped/.*: block 0: expected xxh3-128"):
        Lookup(dataset).by_doc_id(row["doc_id"].hex())


def test_difference_marks_words_and_ignores_line_breaks():
    kept, dropped = "one two three four", "one\ntwo 3 four"
    assert difference(kept, dropped) == "… one two [-three-] [+3+] four …"
    assert difference(kept, "one two  three\nfour") == "none but white space"


def test_difference_is_cut_after_its_limit():
    kept = " ".join(f"w{i} same same same" for i in range(9))
    text = difference(kept, kept.replace("w", "v"), context=1, limit=3)
    assert text.splitlines()[3] == "and 6 more places"


def test_verdict_of_a_kept_and_of_an_unreadable_document():
    assert verdict({}) == "kept"
    assert verdict({"reason": "bad_json", "value": None}) == "dropped: bad_json"


def test_what_was_cut_out_of_a_document_is_listed(tmp_path):
    line = "this very line stands in both of the documents, and is long enough\n"
    texts = [f"{word * 30}\n{line}{word[::-1] * 30}\n" for word in ("one ", "two ")]
    documents = [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)]
    write_jsonl(tmp_path / "in.jsonl", documents)
    table = {
        "input": {"paths": [str(tmp_path / "in.jsonl")]},
        "dedup": {"repeats": {"unit": "line"}},
    }
    curate(curate_recipe(table), str(tmp_path / "out"), JobOptions(quiet=True))
    shown = [ask(str(tmp_path / "out"), name) for name in ("d0", "d1")]
    (cut,) = [text for text in shown if "removed bytes" in text]
    assert "“this very line stands in both" in cut
    found = json.loads(ask(str(tmp_path / "out"), "d0" if cut is shown[0] else "d1", "--json"))
    (span,) = found["spans"]
    assert (span["action"], span["text"]) == ("removed", line)
