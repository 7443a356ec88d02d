import pyarrow as pa
import pytest

from pipelines.report import ledger
from pipelines.report.ledger import bytes_by_reason, fetch, pick_examples, read_ledger
from shards.errors import CorruptError
from shards.manifest import read_manifest


@pytest.fixture
def curated(chain):
    return chain / "curated", read_manifest(chain / "curated").content


@pytest.fixture
def rows(curated):
    folder, content = curated
    return read_ledger(folder, content.shards["dropped"])


def test_bytes_by_reason_add_up_to_what_was_dropped(curated, rows):
    total = curated[1].total
    sizes = bytes_by_reason(rows)
    assert set(sizes) == set(total.drops)
    assert sum(sizes.values()) == total.bytes_read - total.bytes_kept


def test_examples_are_the_nearest_the_median_and_the_farthest():
    values = [49.0, 10.0, 30.0, 45.0, 1.0]
    table = pa.table(
        {
            "reason": ["words_min"] * 5 + ["bad_json"] * 4,
            "value": pa.array(values + [None] * 4, pa.float64()),
            "threshold": pa.array([50.0] * 5 + [None] * 4, pa.float64()),
            "doc_id": [bytes([number]) for number in range(9)],
        }
    )
    picked = pick_examples(table)
    assert list(picked) == ["words_min", "bad_json"]
    assert [row["value"] for row in picked["words_min"]] == [49.0, 30.0, 1.0]
    assert len(picked["bad_json"]) == 3


def test_duplicates_are_no_examples(rows):
    assert set(pick_examples(rows)) == {"bad_json", "gopher_words_min"}


def test_clusters_account_for_every_member(curated, rows):
    clusters = ledger.summarize_clusters(rows, curated[1].stats["clusters"])
    total = curated[1].total.drops
    assert clusters
    assert all(cluster.kept >= 1 for cluster in clusters)
    assert sum(cluster.near for cluster in clusters) == total["near_duplicate"]
    assert sum(cluster.exact for cluster in clusters) == total["exact_duplicate"]


def test_a_pair_is_a_dropped_document_and_the_kept_one_that_it_matched(curated, rows):
    folder, content = curated
    picked = ledger.pick_pairs(rows, ledger.summarize_clusters(rows, content.stats["clusters"]))
    dropped = fetch(folder, content.shards["dropped"], {row["doc_id"] for _, row in picked})
    kept = fetch(folder, content.shards["kept"], {row["matched"] for _, row in picked})
    pairs = ledger.make_pairs(picked, dropped, kept)
    assert len(pairs) == ledger.PAIRS
    for pair in pairs:
        assert 0.7 <= pair.jaccard <= 1
        assert pair.kept["text"] != pair.dropped["text"]
        assert pair.kept["text"].split()[:50] == pair.dropped["text"].split()[:50]
    assert ledger.make_pairs(picked, dropped, {}) == []


def test_fetch_returns_what_was_asked_for(curated, rows):
    folder, content = curated
    wanted = set(rows["doc_id"].to_pylist()[:3])
    found = fetch(folder, content.shards["dropped"], wanted | {b"\0" * 16})
    assert set(found) == wanted


def test_a_damaged_shard_is_named(curated):
    folder, content = curated
    path = folder / content.shards["dropped"][0].path
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptError, match=r"00000-of-.*assay verify"):
        read_ledger(folder, content.shards["dropped"])
