"""Lines, paragraphs and substrings that repeat, in the curate job."""

import json
import re
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipelines.curate import cut, job, repeats
from pipelines.curate.job import curate
from pipelines.curate.repeats import RepeatsContext
from pipelines.readers import Range
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import ReconcileError
from shards.verify import verify

FOOTER = "Subscribe to the assayer's weekly letter and never miss a furnace again"
PASSAGE = " ".join(f"word{i}" for i in range(60))
QUIET = JobOptions(quiet=True)


@pytest.fixture
def site(tmp_path):
    """Forty pages of three own lines and a footer, two that are only footer, one with a passage."""
    pages = [
        {
            "id": f"p{n}",
            "source": f"s{n % 2}",
            "text": f"Own line {n} about ore, silver and lead.\n{FOOTER}\n\nAnother one {n}: "
            + f"{n * n} grains of bullion in the cupel.\n",
        }
        for n in range(40)
    ]
    pages += [{"id": f"f{n}", "text": f"{FOOTER}\n" * (n + 1)} for n in range(2)]
    pages += [{"id": f"w{n}", "text": f"start {n} {PASSAGE} {n} éè"} for n in range(3)]
    path = tmp_path / "site.jsonl"
    path.write_text("".join(json.dumps(page) + "\n" for page in pages))
    return path


def run(out, path, options=QUIET, near=False, **table):
    recipe = curate_recipe(
        {
            "input": {"paths": [str(path)]},
            "dedup": {"near": {"enabled": near}, "repeats": table},
            "output": {"shard_bytes": 1 << 16},
        }
    )
    return curate(recipe, str(out), options)[0]


def by_id(out, role):
    return {row["id"]: row for row in pq.read_table(out / role).to_pylist()}


@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_one_occurrence_stays_and_every_cut_is_in_the_ledger(site, tmp_path, unit):
    before = {row["id"]: row for row in map(json.loads, site.read_text().splitlines())}
    out = tmp_path / "out"
    # A paragraph of a page is its first two lines, so that only the bare footers repeat.
    if unit == "paragraph":
        site.write_text(site.read_text().replace(f"\\n{FOOTER}", f"\\n\\n{FOOTER}"))
        before = {row["id"]: row for row in map(json.loads, site.read_text().splitlines())}
    manifest = run(out, site, unit=unit)
    kept, dropped = by_id(out, "kept"), by_id(out, "dropped")
    assert sum(row["text"].count(FOOTER) for row in kept.values()) == 1
    spans = pq.read_table(out / "spans").to_pylist()
    gaps: dict[bytes, list] = {}
    for span in spans:
        gaps.setdefault(span["doc_id"], []).append(span)
    for name, row in kept.items():
        raw, left, at = before[name]["text"].encode(), b"", 0
        for span in gaps.get(row["doc_id"], []):
            assert raw[span["start"] : span["end"]].decode() == span["text"]
            assert (span["reason"], span["action"]) == (f"repeated_{unit}", "removed")
            left, at = left + raw[at : span["start"]], span["end"]
        assert row["text"].encode() == left + raw[at:]
        assert row["bytes"] == len(row["text"].encode())
    holder = next(row for row in kept.values() if FOOTER in row["text"])
    first = {re.match(r"first in (\w{16}) at byte \d+, \d+ times", s["detail"])[1] for s in spans}
    assert first == {holder["doc_id"].hex()[:16]}
    gone = [row for row in dropped.values() if row["reason"] == "repeated_text"]
    assert all(not row["text"].replace(FOOTER, "").strip() for row in gone)
    content = manifest.content
    removed = sum(s["end"] - s["start"] for s in spans if s["action"] == "removed")
    assert content.stats["repeats"]["bytes"] == removed > 0
    sizes = sum(row["bytes"] for row in [*kept.values(), *dropped.values()])
    assert content.total.bytes_read == sizes + removed
    assert content.total.bytes_kept == sum(row["bytes"] for row in kept.values())
    assert verify(out) == []


def test_long_substrings_are_cut_but_for_the_first(site, tmp_path):
    out = tmp_path / "out"
    run(out, site, unit="substring")
    texts = [row["text"] for name, row in by_id(out, "kept").items() if name.startswith("w")]
    assert sorted(len(text) > len(PASSAGE) for text in texts) == [False, False, True]
    assert all(re.fullmatch(r"start \d (word.* )? ?\d éè", text) for text in texts)
    spans = pq.read_table(out / "spans").to_pylist()
    assert [(row["text"], row["reason"]) for row in spans] == [(PASSAGE, "repeated_substring")] * 2
    detail = r"first in \w{16} at byte 8, 3 times, before cuts"
    assert all(re.fullmatch(detail, row["detail"]) for row in spans)


def test_marked_text_stays(site, tmp_path):
    out = tmp_path / "out"
    manifest = run(out, site, unit="line", action="mark")
    plain = run(tmp_path / "plain", site)
    assert manifest.content.shards["kept"] == plain.content.shards["kept"]
    spans = pq.read_table(out / "spans").to_pylist()
    assert {row["action"] for row in spans} == {"marked"}
    assert manifest.content.stats["repeats"] == {"documents": 41, "spans": 42, "bytes": 0}


@pytest.mark.parametrize("unit", ["line", "substring"])
def test_same_dataset_for_any_ranges(site, tmp_path, unit):
    first = run(tmp_path / "a", site, near=True, unit=unit)
    small = JobOptions(range_bytes=500, quiet=True)
    assert run(tmp_path / "b", site, small, near=True, unit=unit).dataset_id == first.dataset_id


@pytest.mark.parametrize("unit", ["line", "substring"])
def test_same_dataset_for_any_buckets(site, tmp_path, monkeypatch, unit):
    first = run(tmp_path / "a", site, unit=unit)
    monkeypatch.setattr(repeats, "_LEAST_BUCKETS", 1)
    monkeypatch.setattr(repeats, "_BUCKET_BYTES", 3000)
    assert run(tmp_path / "b", site, unit=unit).dataset_id == first.dataset_id


def test_a_job_that_was_killed_before_the_write_resumes(site, tmp_path, monkeypatch):
    first = run(tmp_path / "whole", site, unit="substring")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", site, unit="substring")
    monkeypatch.undo()
    monkeypatch.setattr(job, "build_tabulate", die)  # the tables are there
    assert run(tmp_path / "out", site, unit="substring").dataset_id == first.dataset_id


def test_rows_that_were_damaged_are_made_again(site, tmp_path, monkeypatch):
    first = run(tmp_path / "whole", site, unit="line")

    def die(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "build_merge", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", site, unit="line")
    monkeypatch.undo()
    (rows,) = (tmp_path / "out").glob("_work/*/*/passages-64/rows/00000")
    rows.write_bytes(rows.read_bytes()[:-1])
    assert run(tmp_path / "out", site, unit="line").dataset_id == first.dataset_id


def test_a_lost_bucket_fails_the_job(site, tmp_path, monkeypatch):
    real = repeats.MergeBuckets.process

    def lose_some(self, bucket):
        return real(self, bucket) if bucket % 2 else iter(())

    monkeypatch.setattr(repeats.MergeBuckets, "process", lose_some)
    with pytest.raises(ReconcileError, match="passages were found but"):
        run(tmp_path / "out", site, unit="line")


def test_bytes_that_do_not_add_up_commit_nothing(site, tmp_path, monkeypatch):
    real = cut.remove_spans

    def lose_a_byte(data, offsets, doc, start, end):
        text, bounds = real(data, offsets, doc, start, end)
        bounds[-1] -= 1
        return text, bounds

    monkeypatch.setattr(cut, "remove_spans", lose_a_byte)
    with pytest.raises(ReconcileError, match="bytes are gone but"):
        run(tmp_path / "out", site, unit="line")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("format_", "compression", "buckets"),
    [
        ("jsonl", "none", 128),
        ("jsonl", "zstd", 512),
        ("warc", "gzip", 512),
        ("parquet", "none", 512),
    ],
)
def test_buckets_are_for_the_bytes_of_the_text(format_, compression, buckets):
    span = Range("a", format_, compression, 0, 1, bytes=100 * (512 << 20))
    scan = SimpleNamespace(plan=SimpleNamespace(ranges=[span]))
    assert RepeatsContext.buckets.fget(SimpleNamespace(scan=scan)) == buckets
