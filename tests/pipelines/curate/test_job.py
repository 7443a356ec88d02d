"""The curate job end to end, in process: same bytes however it is run, and nothing lost."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.commit import own_output
from pipelines.curate import job, scan, write
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import DatasetError, InputError, PlatformError, RecipeError, ReconcileError
from shards.manifest import read_manifest

QUIET = JobOptions(quiet=True)


def recipe_for(*paths, **tables):
    table = {
        "input": {"paths": [str(path) for path in paths]},
        "filters": {"presets": ["gopher"]},
        "split": {"valid_fraction": 0.2},
        "output": {"shard_bytes": 1 << 16},
        **tables,
    }
    return curate_recipe(table)


def run(out, *paths, options=QUIET, **tables):
    manifest, _ = curate(recipe_for(*paths, **tables), str(out), options)
    return manifest


def rows(out, role):
    return pq.read_table(out / role).to_pylist()


def test_counts_reconcile_and_every_drop_has_its_evidence(corpus, tmp_path):
    out = tmp_path / "out"
    total = run(out, corpus / "*").content.total
    kept, dropped = rows(out, "kept"), rows(out, "dropped")
    assert (total.read, total.kept, total.dropped) == (120, len(kept), len(dropped))
    assert total.kept + total.dropped == 120
    assert {row["reason"] for row in dropped} == {
        "exact_duplicate",
        "near_duplicate",
        "gopher_words_min",
    }
    kept_ids = {row["doc_id"] for row in kept}
    for row in dropped:
        assert row["text"]
        if row["reason"].endswith("duplicate"):
            assert row["matched"] in kept_ids
            assert row["threshold"] <= row["jaccard"] <= 1.0
        else:
            assert row["value"] < row["threshold"]
            assert row["matched"] is None


def test_rows_are_sorted_and_lie_in_the_shard_of_their_content(corpus, tmp_path):
    manifest = run(tmp_path / "out", corpus / "*")
    count = len(manifest.content.shards["kept"])
    assert count > 1
    for number, entry in enumerate(manifest.content.shards["kept"]):
        table = pq.read_table(tmp_path / "out" / entry.path).to_pylist()
        keys = [(row["content_hash"], row["doc_id"]) for row in table]
        assert keys == sorted(keys)
        assert all(int.from_bytes(key[0][:8], "little") % count == number for key in keys)


def test_no_cluster_is_cut_by_the_split(corpus, tmp_path):
    run(tmp_path / "out", corpus / "*")
    splits: dict[bytes, set[str]] = {}
    for row in rows(tmp_path / "out", "kept") + rows(tmp_path / "out", "dropped"):
        splits.setdefault(row["cluster"] or row["doc_id"], set()).add(row["split"])
    assert all(len(split) == 1 for split in splits.values())
    assert {"train", "valid"} == set.union(*splits.values())


def test_same_dataset_for_any_range_size_order_and_names(corpus, tmp_path):
    first = run(tmp_path / "a", corpus / "one.jsonl", corpus / "two.jsonl.zst")
    for number, size in enumerate((700, 10_000)):
        options = JobOptions(range_bytes=size, quiet=True)
        again = run(tmp_path / f"b{number}", corpus / "*", options=options)
        assert again.dataset_id == first.dataset_id
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(corpus / "one.jsonl", moved / "z.ndjson")
    shutil.copy(corpus / "two.jsonl.zst", moved / "a.jsonl.zst")
    renamed = run(tmp_path / "c", moved / "z.ndjson", moved / "a.jsonl.zst")
    assert renamed.dataset_id == first.dataset_id
    assert renamed.run["paths"] != first.run["paths"]


def test_finished_job_is_skipped_and_a_changed_recipe_is_not(corpus, tmp_path):
    out = tmp_path / "out"
    recipe = recipe_for(corpus / "*")
    _, ran_first = curate(recipe, str(out), QUIET)
    before = (out / "manifest.json").stat().st_mtime_ns
    _, ran_again = curate(recipe, str(out), QUIET)
    assert (ran_first, ran_again) == (True, False)
    assert (out / "manifest.json").stat().st_mtime_ns == before
    other = recipe_for(corpus / "*", filters={})
    changed, ran_other = curate(other, str(out), QUIET)
    assert ran_other
    assert "gopher_words_min" not in changed.content.total.drops


def test_interrupted_job_resumes_without_scanning_again(corpus, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", corpus / "*")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", corpus / "*")
    with pytest.raises(DatasetError, match="not a dataset"):
        read_manifest(tmp_path / "out")
    monkeypatch.undo()
    fragments = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("fragments/*.arrow")}
    assert fragments
    again = run(tmp_path / "out", corpus / "*", options=JobOptions(quiet=True, keep_work=True))
    assert again.dataset_id == whole.dataset_id
    assert all(path.stat().st_mtime_ns == time for path, time in fragments.items())


def test_damaged_fragment_is_made_again(corpus, tmp_path):
    kept = JobOptions(quiet=True, keep_work=True)
    first = run(tmp_path / "out", corpus / "*", options=kept)
    (tmp_path / "out" / "manifest.json").unlink()
    for path in (tmp_path / "out").rglob("fragments/*.arrow"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert run(tmp_path / "out", corpus / "*", options=kept).dataset_id == first.dataset_id


def test_lost_rows_fail_the_job_and_commit_nothing(corpus, tmp_path, monkeypatch):
    real = write.count_sources

    def lose_one(table, kept):
        counts = real(table, kept)
        next(iter(counts.values())).read -= 1
        return counts

    monkeypatch.setattr(write, "count_sources", lose_one)
    with pytest.raises(ReconcileError, match="were read but"):
        run(tmp_path / "out", corpus / "*")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_unreadable_records_are_ledger_rows_with_file_and_position(corpus, tmp_path):
    good = (corpus / "one.jsonl").read_bytes()
    bad = b'{"text": broken\n' + b'{"text": "\xff\xfe", "source": "s0"}\n' + b'{"id": "no-text"}\n'
    (corpus / "bad.jsonl").write_bytes(good + bad)
    (corpus / "cut.jsonl.zst").write_bytes((corpus / "two.jsonl.zst").read_bytes()[:-9])
    out = tmp_path / "out"
    manifest = run(out, corpus / "bad.jsonl", corpus / "cut.jsonl.zst")
    ledger = [row for row in rows(out, "dropped") if row["text"] is None]
    names = manifest.run["paths"]
    found = {(names[row["input"]].rsplit("/", 1)[1], row["reason"]): row for row in ledger}
    assert set(found) == {
        ("bad.jsonl", "bad_json"),
        ("bad.jsonl", "bad_utf8"),
        ("bad.jsonl", "missing_text"),
        ("cut.jsonl.zst", "truncated_zstd"),
    }
    assert found["bad.jsonl", "bad_json"]["position"] == len(good)
    assert all(row["detail"] for row in ledger)


def test_identical_files_are_read_twice_and_deduplicated(corpus, tmp_path):
    shutil.copy(corpus / "one.jsonl", corpus / "copy.jsonl")
    manifest = run(tmp_path / "out", corpus / "one.jsonl", corpus / "copy.jsonl")
    assert manifest.content.total.read == 120
    assert (
        manifest.content.total.kept == run(tmp_path / "b", corpus / "one.jsonl").content.total.kept
    )


def test_dedup_and_filters_can_be_switched_off(corpus, tmp_path):
    off = {"exact": {"enabled": False}, "near": {"enabled": False}}
    total = run(tmp_path / "out", corpus / "*", dedup=off, filters={}).content.total
    assert (total.kept, total.dropped) == (120, 0)


def test_text_of_dropped_documents_can_be_left_out(corpus, tmp_path):
    tables = {"output": {"dropped_text": False, "shard_bytes": 1 << 16}}
    run(tmp_path / "out", corpus / "*", **tables)
    assert {row["text"] for row in rows(tmp_path / "out", "dropped")} == {None}


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"\n\n", "no records")])
def test_input_without_a_byte_or_a_record_is_an_error(tmp_path, content, words):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"empty\.jsonl: {words}"):
        run(tmp_path / "out", path)


def test_two_jobs_on_one_output_are_refused(corpus, tmp_path):
    out = str(tmp_path / "out")
    with (
        own_output(out, "documents", keep_work=False),
        pytest.raises(PlatformError, match="another job is writing to this folder"),
    ):
        run(out, corpus / "*")
    assert run(out, corpus / "*").content.total.read == 120


def test_input_that_changes_while_it_is_read_is_refused(corpus, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", corpus / "*")
    original = (corpus / "one.jsonl").read_bytes()
    real = job._scan

    def scan_then_append(*arguments):
        infos = real(*arguments)
        (corpus / "one.jsonl").write_bytes(original + b"{}\n")
        return infos

    monkeypatch.setattr(job, "_scan", scan_then_append)
    with pytest.raises(InputError, match=r"one\.jsonl: was changed while it was read"):
        run(tmp_path / "out", corpus / "*")
    monkeypatch.undo()
    (corpus / "one.jsonl").write_bytes(original)
    assert run(tmp_path / "out", corpus / "*").dataset_id == whole.dataset_id


def test_a_list_that_changes_while_it_is_used_leaves_no_fragment(corpus, tmp_path, monkeypatch):
    sites = tmp_path / "sites"
    sites.write_text("one.org\n")
    recipe = curate_recipe(
        {
            "input": {"paths": [str(corpus / "*")]},
            "signals": {"url_lists": {"bad": [str(sites)]}},
        }
    )
    whole = job.curate(recipe, str(tmp_path / "whole"), JobOptions(quiet=True))[0]
    real = scan.compute_signals

    def compute_then_append(*arguments):
        if sites.read_text() == "one.org\n":
            sites.write_text("one.org\nother.org\n")
        return real(*arguments)

    monkeypatch.setattr(scan, "compute_signals", compute_then_append)
    with pytest.raises(InputError, match="sites: was changed while it was read"):
        job.curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))
    monkeypatch.undo()
    sites.write_text("one.org\n")
    assert not list((tmp_path / "out").glob("_work/*/fragments/*"))
    again = job.curate(recipe, str(tmp_path / "out"), JobOptions(quiet=True))[0]
    assert again.dataset_id == whole.dataset_id


def test_foreign_folder_is_refused(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(RecipeError, match="not empty and not an Assay dataset"):
        run(tmp_path / "mine", corpus / "*")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep me"


def test_inputs_inside_the_output_are_refused_and_kept(corpus, tmp_path):
    out = tmp_path / "out"
    run(out, corpus / "*")
    inside = out / "raw.jsonl"
    shutil.copy(corpus / "one.jsonl", inside)
    with pytest.raises(InputError, match=r"raw\.jsonl: lies in the output folder"):
        run(out, inside)
    assert inside.exists()


def test_manifest_holds_no_name_and_no_time_in_its_hashed_part(corpus, tmp_path):
    run(tmp_path / "out", corpus / "*")
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())["content"]
    assert str(tmp_path) not in json.dumps(content)
    assert "one.jsonl" not in json.dumps(content)
