"""Decontamination in the curate job: what is found, dropped or marked, and with which evidence."""

import json

import pyarrow.parquet as pq
import pytest

from pipelines.curate.evaluation import find_evaluation, identity, load_evaluation
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import InputError, RecipeError
from shards.verify import verify

QUESTION = (
    "how many grains of fine silver does a bullion of thirteen ounces hold when assayed twice"
)
SHORT = "what is the weight of eight grains"
ANSWER = "the cupel takes the litharge up and leaves a button"


@pytest.fixture
def sets(tmp_path):
    """Two sets: one with an id, a too short item and one of ten words; one without ids."""
    one, two = tmp_path / "one-eval.jsonl", tmp_path / "two-eval.jsonl"
    items = [
        {"id": "q1", "text": QUESTION},
        {"id": "s", "text": SHORT},
        {"id": "a", "text": ANSWER},
    ]
    one.write_text("".join(json.dumps(item) + "\n" for item in items))
    two.write_text(json.dumps({"text": "entirely other words " * 5}) + "\n")
    return {"quiz": [str(one)], "other": [str(two)]}


@pytest.fixture
def planted(corpus):
    """The corpus of 120 documents and three more: a question in capitals, twice, and an answer."""
    lines = [
        {"id": "held", "text": f"Before. {QUESTION.upper()}? After.", "source": "web"},
        {"id": "copy", "text": f"Before. {QUESTION.upper()}?  After.", "source": "web"},
        {"id": "part", "text": f"{' '.join(QUESTION.split()[2:])} {ANSWER}", "source": "web"},
        {"id": "clean", "text": f"{SHORT} {QUESTION[:40]}", "source": "web"},
    ]
    path = corpus / "three.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return corpus


def run(out, corpus, size=32 << 20, **contamination):
    recipe = curate_recipe(
        {
            "input": {"paths": [str(corpus / "*")]},
            "dedup": {"contamination": contamination},
            "output": {"shard_bytes": 1 << 16},
        }
    )
    return curate(recipe, str(out), JobOptions(quiet=True, range_bytes=size))[0]


def by_id(out, role):
    return {row["id"]: row for row in pq.read_table(out / role).to_pylist()}


def test_contaminated_documents_are_dropped_with_set_and_item(planted, sets, tmp_path):
    out = tmp_path / "out"
    manifest = run(out, planted, sets=sets)
    dropped = by_id(out, "dropped")
    found = {name: row for name, row in dropped.items() if row["reason"] == "contaminated"}
    # An exact copy is contaminated for itself: nothing that is dropped keeps another out.
    assert set(found) == {"held", "copy", "part"}
    assert found["held"]["detail"] == "quiz: item q1: 4 of 4 n-grams of 13 words"
    assert (found["held"]["value"], found["held"]["threshold"]) == (1.0, 0.0)
    assert found["part"]["detail"] == "quiz: item a: 1 of 1 n-grams of 13 words"
    assert "clean" in by_id(out, "kept")
    assert manifest.content.total.drops["contaminated"] == 3
    assert manifest.content.stats["evaluation"] == {
        "other": {"items": 1, "too_short": 0},
        "quiz": {"items": 3, "too_short": 1},
    }
    spans = pq.read_table(out / "spans").to_pylist()
    texts = {row["text"].lower() for row in spans if row["doc_id"] == found["held"]["doc_id"]}
    assert texts == {QUESTION}
    assert {row["action"] for row in spans} == {"dropped"}
    assert verify(out) == []


def test_marked_documents_stay_and_their_spans_are_in_the_ledger(planted, sets, tmp_path):
    out = tmp_path / "out"
    manifest = run(out, planted, sets=sets, action="mark")
    assert "contaminated" not in manifest.content.total.drops
    kept = by_id(out, "kept")
    assert {"held", "part"} <= set(kept) or {"copy", "part"} <= set(kept)
    spans = pq.read_table(out / "spans").to_pylist()
    of_part = [row for row in spans if row["doc_id"] == kept["part"]["doc_id"]]
    raw = kept["part"]["text"].encode()
    cut = [raw[row["start"] : row["end"]].decode() for row in of_part]
    assert " ".join(cut) == kept["part"]["text"]
    assert {row["action"] for row in spans} == {"marked"}


def test_an_overlap_below_the_threshold_is_no_contamination(planted, sets, tmp_path):
    text = " ".join(QUESTION.split()[:14])  # two of the four 13-grams
    (planted / "four.jsonl").write_text(json.dumps({"id": "half", "text": text}) + "\n")
    out = tmp_path / "out"
    run(out, planted, sets=sets, overlap=0.75)
    assert by_id(out, "kept")["half"]["text"] == text
    assert by_id(out, "dropped")["held"]["value"] == 1.0


def test_same_dataset_for_any_ranges_and_names_and_not_without_the_sets(planted, sets, tmp_path):
    first = run(tmp_path / "a", planted, sets=sets)
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "one-eval.jsonl").read_bytes())
    renamed = {"other": sets["other"], "quiz": [str(moved)]}
    assert run(tmp_path / "b", planted, 700, sets=renamed).dataset_id == first.dataset_id
    assert str(tmp_path) not in json.dumps(first.content.recipe)
    moved.write_text(json.dumps({"text": QUESTION + " and more"}) + "\n")
    assert run(tmp_path / "b", planted, sets=renamed).dataset_id != first.dataset_id
    off = run(tmp_path / "b", planted)
    assert set(off.content.shards) == {"kept", "dropped"}
    assert not list((tmp_path / "b" / "spans").glob("*"))


def test_items_without_an_id_go_by_their_position(sets, tmp_path):
    config = curate_recipe({"input": {"paths": ["x"]}, "dedup": {"contamination": {"sets": sets}}})
    contamination = config.dedup.contamination
    found = find_evaluation(contamination)
    known = load_evaluation(found, contamination)
    assert list(zip(known.sets, known.names, strict=True)) == [
        ("other", "at 0"),
        ("quiz", "q1"),
        ("quiz", "s"),
        ("quiz", "a"),
    ]
    assert identity(found) == {file.set: [file.hash] for file in found}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a b"}\n', "'quiz' has no item of at least .*min_words = 8"),
        ('{"txt": "a b"}\n', r"the record at 0 cannot be read: missing_text"),
    ],
)
def test_sets_that_would_promise_too_much_are_refused(corpus, tmp_path, content, message):
    path = tmp_path / "eval.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", corpus, sets={"quiz": [str(path)]})


def test_a_set_without_files_and_impossible_lengths_are_refused(corpus, tmp_path):
    with pytest.raises(RecipeError, match=r"sets\.quiz is empty"):
        run(tmp_path / "out", corpus, sets={"quiz": []})
    with pytest.raises(RecipeError, match="min_words = 9 is above ngram = 8"):
        run(tmp_path / "out", corpus, ngram=8, min_words=9)
