import io
import json

import msgspec
import pytest
from rich.console import Console

from shards.hashing import canonical_json
from shards.inspect import human_bytes, render, summary
from shards.manifest import Content, Counts, InputEntry, new_manifest
from shards.tokens import shard_entry


@pytest.fixture
def manifest():
    sources = {
        f"source-{i:02}": Counts(read=i + 1, kept=i, dropped=1, bytes_read=i * 2000, drops={"r": 1})
        for i in range(20)
    }
    total = Counts(read=210, kept=190, dropped=20, bytes_read=2048, bytes_kept=1024, tokens=99)
    total.drops = {"too_short": 5, "near_duplicate": 15}
    content = Content(
        kind="tokens",
        shards={"tokens": [shard_entry("tokens/a", b"12345", documents=210, tokens=99)]},
        total=total,
        sources=sources,
        inputs=[InputEntry(hash="aa", bytes=3000)],
        parents=["p" * 32],
        recipe={"tokenize": {"documents": "all"}},
        tokenizer={"sha256": "ab" * 32, "vocab_size": 4096, "eos_id": 2},
    )
    return new_manifest(content, stage_key="k" * 32, run={"host": "here"})


def shown(manifest):
    console = Console(file=io.StringIO(), width=100)
    console.print(render(manifest))
    return console.file.getvalue()


def test_summary_is_plain_data_with_the_promised_keys(manifest):
    facts = json.loads(canonical_json(summary(manifest)))
    assert facts["dataset_id"] == manifest.dataset_id
    assert facts["kind"] == "tokens"
    assert facts["documents"] == {"read": 210, "kept": 190, "dropped": 20}
    assert facts["drops"] == {"near_duplicate": 15, "too_short": 5}
    assert facts["tokens"] == 99
    assert facts["shards"] == 1
    assert facts["bytes"] == {"read": 2048, "kept": 1024, "cut": 0, "shards": 5}
    assert facts["stats"] == {}
    assert facts["sources"]["source-03"]["kept"] == 3
    assert facts["stage_key"] == "k" * 32
    assert facts["parents"] == ["p" * 32]
    assert facts["recipe"] == {"tokenize": {"documents": "all"}}
    assert facts["inputs"] == [{"hash": "aa", "bytes": 3000, "copy": 0}]
    assert facts["run"] == {"host": "here"}


def test_tables_show_counts_shares_and_the_largest_sources(manifest):
    text = shown(manifest)
    assert manifest.dataset_id in text
    assert "210 read = 190 kept + 20 dropped (9.5%)" in text
    assert "2 KiB read, 1 KiB kept (50.0%)" in text
    assert text.index("near_duplicate") < text.index("too_short")
    assert text.index("source-19") < text.index("source-05")
    assert "source-04" not in text
    assert "… and 5 more" in text
    assert "vocab_size 4096" in text


def test_what_was_cut_is_shown(manifest):
    repeats = {"documents": 3, "spans": 4, "bytes": 500}
    manifest.content.stats = {"repeats": repeats, "histograms": {}}
    assert "4 spans in 3 documents, 500 B cut" in shown(manifest)
    facts = summary(manifest)
    assert (facts["bytes"]["cut"], facts["stats"]) == (500, {"repeats": repeats})


def test_names_from_the_data_are_not_read_as_markup(manifest):
    manifest.content.sources = {"[bold]x": Counts()}
    manifest.content.total.drops = {"[red]": 1}
    assert "[bold]x" in shown(manifest)
    assert "[red]" in shown(manifest)


def test_an_empty_dataset_can_be_shown(manifest):
    empty = msgspec.structs.replace(
        manifest, content=Content(kind="documents", shards={}, total=Counts(), sources={})
    )
    assert "0 read = 0 kept + 0 dropped" in shown(empty)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1023, "0.999 KiB"), (1280, "1.25 KiB"), (5 << 50, "5 PiB")],
)
def test_human_bytes(size, text):
    assert human_bytes(size) == text
