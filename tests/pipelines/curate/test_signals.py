"""Signals of a whole job: columns of any type, masked text, and what the manifest counts."""

import pyarrow.parquet as pq
import pytest

from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from tests.pipelines.conftest import make_documents, write_jsonl

GERMAN = "Der Hund läuft durch den dunklen Wald und sucht seinen Herrn, den er verloren hat."
SECRET = "Write to jane.doe@mail.example.org or to 192.168.0.254 and wait for an answer."


def run(folder, out, **signals):
    recipe = curate_recipe(
        {
            "input": {"paths": [str(folder / "*")]},
            "signals": signals,
            "filters": {"bounds": {"gopher_words": {"min": 3}}},
            "output": {"shard_bytes": 1 << 16},
        }
    )
    manifest, _ = curate(recipe, str(out), JobOptions(quiet=True))
    return manifest.content


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    texts = [{"text": GERMAN}, {"text": SECRET}, {"text": "b@c.org"}, {"text": ""}]
    write_jsonl(made / "a.jsonl", [*make_documents(20), *texts])
    return made


def test_languages_are_a_column_and_counted(folder, tmp_path):
    content = run(folder, tmp_path / "out", language="fasttext")
    kept = pq.read_table(tmp_path / "out" / "kept").to_pylist()
    assert [row["lang"] for row in kept if row["text"] == GERMAN] == ["de"]
    counts = content.stats["languages"]
    assert counts["kept"]["de"] == {"documents": 1, "bytes": len(GERMAN.encode())}
    for role, number in (("kept", content.total.kept), ("dropped", content.total.dropped - 1)):
        assert sum(own["documents"] for own in counts[role].values()) == number
    (unread,) = pq.read_table(
        tmp_path / "out" / "dropped", filters=[("reason", "=", "empty_text")]
    ).to_pylist()
    assert (unread["lang"], unread["lang_confidence"]) == (None, None)


def test_sites_in_a_list_go_to_the_ledger(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    pages = [
        {"text": f"one two three page {n}", "url": f"https://www.s{n}.org/x"} for n in range(3)
    ]
    write_jsonl(made / "a.jsonl", [*pages, {"text": "one two three of no site"}, {"text": ""}])
    (tmp_path / "domains").write_text("s1.org\n")
    recipe = curate_recipe(
        {
            "input": {"paths": [str(made / "*")]},
            "signals": {"url_lists": {"adult": [str(tmp_path / "domains")]}},
            "filters": {"bounds": {"url_adult": {"max": 0}}},
        }
    )
    manifest, _ = curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))
    rows = pq.read_table(tmp_path / "out" / "dropped").to_pylist()
    assert {(row["reason"], row["url"], row["url_adult"]) for row in rows} == {
        ("url_adult_max", "https://www.s1.org/x", 1),
        ("empty_text", None, None),
    }
    assert manifest.content.recipe["signals"]["url_lists"] == {"adult": []}
    assert manifest.content.total.kept == 3


def test_masked_data_is_in_no_file_and_counted(folder, tmp_path):
    content = run(folder, tmp_path / "out", mask_pii=True)
    tables = [pq.read_table(tmp_path / "out" / role) for role in ("kept", "dropped")]
    texts = [text or "" for table in tables for text in table["text"].to_pylist()]
    assert "Write to <email> or to <ip> and wait for an answer." in texts
    assert "<email>" in texts
    assert not any("jane" in text or "b@c" in text for text in texts)
    nothing = {"iban": 0, "card": 0, "phone": 0}
    assert content.stats["masked"] == {
        "kept": {"documents": 1, "email": 1, **nothing, "ip": 1, "bytes": 25 + 13},
        "dropped": {"documents": 1, "email": 1, **nothing, "ip": 0, "bytes": 7},
    }
    total = content.total
    assert total.bytes_read == total.bytes_kept + content.stats["bytes"]["dropped"]
    assert content.definitions["pii_mask"].startswith("pii-mask-v3")


def test_details_of_unreadable_records_are_masked_too(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    (made / "a.jsonl").write_text(
        '{"id": "x", "mail": "j@b.example.org"}\n{"text": 5, "m": "k@b.org"}\n{"text": "l@b.org\n'
        '{"text": "one two three four"}\n'
    )
    run(made, tmp_path / "out", mask_pii=True)
    rows = pq.read_table(tmp_path / "out" / "dropped").to_pylist()
    assert len(rows) == 3
    assert not any("@b." in str(row) for row in rows)
    assert 'the field \'text\' is a number: \'{"text": 5, "m": "<email>"}\'' in [
        row["detail"] for row in rows
    ]
