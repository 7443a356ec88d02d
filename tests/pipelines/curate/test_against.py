"""A dataset held against earlier ones equals its part of one run over everything."""

import pyarrow.parquet as pq
import pytest

from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from shards.errors import CorruptError, RecipeError
from shards.verify import verify
from tests.pipelines.conftest import make_documents, write_jsonl
from tests.pipelines.memory_files import OBJECTS

QUIET = JobOptions(quiet=True)


@pytest.fixture
def parts(tmp_path):
    """Three files that share documents: copies, edited copies, and one file that is there twice."""
    folder = tmp_path / "parts"
    folder.mkdir()
    old, new = make_documents(40, seed=1), make_documents(40, seed=2)
    edited = [{**row, "text": row["text"].replace("ore", "lead", 1)} for row in old[:20]]
    return [
        write_jsonl(folder / "c.jsonl", old),
        write_jsonl(folder / "b.jsonl", [*new, *edited]),
        write_jsonl(folder / "a.jsonl", [*edited[10:], *make_documents(20, seed=3), *new[:5]]),
        write_jsonl(folder / "z.jsonl", old),
    ]


def run(out, *paths, against=(), options=QUIET, near=None, **dedup):
    recipe = curate_recipe(
        {
            "input": {"paths": [str(path) for path in paths]},
            "filters": {"presets": ["gopher"]},
            "dedup": {
                "near": {"keep": "earliest", **(near or {})},
                "against": [str(folder) for folder in against],
                "index": True,
                **dedup,
            },
            "split": {"valid_fraction": 0.3},
            "output": {"shard_bytes": 1 << 16},
        }
    )
    return curate(recipe, str(out), options)[0]


def rows(out, sources=None):
    """Every row by doc_id, without the input's number, which is the dataset's own."""
    found = {}
    for role in ("kept", "dropped"):
        for row in pq.read_table(out / role).to_pylist():
            assert row["doc_id"] not in found
            found[row["doc_id"]] = {"role": role, **row, "input": None}
    return found


@pytest.mark.parametrize("size", [32 << 20, 3000])
def test_parts_one_after_the_other_equal_one_run(parts, tmp_path, size):
    options = JobOptions(range_bytes=size, quiet=True)
    first = run(tmp_path / "1", parts[0], options=options)
    second = run(tmp_path / "2", parts[1], against=[tmp_path / "1"], options=options)
    rest = run(
        tmp_path / "3", *parts[2:], against=[tmp_path / "1", tmp_path / "2"], options=options
    )
    assert (first.content.parents, second.content.parents) == ([], [first.dataset_id])
    assert rest.content.parents == [first.dataset_id, second.dataset_id]
    assert verify(tmp_path / "3") == []

    run(tmp_path / "all", *parts)
    whole = rows(tmp_path / "all")
    run(tmp_path / "12", *parts[:2])
    partial = rows(tmp_path / "12")
    last, middle = rows(tmp_path / "3"), rows(tmp_path / "2")
    assert last == {name: whole[name] for name in last}
    assert middle == {name: partial[name] for name in middle}
    assert len(last) + len(middle) + len(rows(tmp_path / "1")) == len(whole)
    matched = {row["matched"] for row in last.values() if row["role"] == "dropped"}
    assert matched & set(rows(tmp_path / "1"))
    assert matched & set(middle)


def test_texts_of_earlier_datasets_are_not_read(parts, tmp_path):
    run(tmp_path / "1", parts[0])
    first = run(tmp_path / "2", parts[1], against=[tmp_path / "1"])
    for role in ("kept", "dropped"):
        for path in (tmp_path / "1" / role).iterdir():
            path.unlink()
    parts[0].unlink()
    again = run(tmp_path / "3", parts[1], against=[tmp_path / "1"])
    assert again.dataset_id == first.dataset_id


def test_earlier_datasets_may_be_on_a_store_of_objects(parts, tmp_path):
    OBJECTS.clear()
    folders = {"here": str(tmp_path), "there": "memory://lake"}
    ids = {}
    for name, base in folders.items():
        run(f"{base}/1", parts[0])
        ids[name] = run(f"{base}/2", parts[1], against=[f"{base}/1/"]).dataset_id
    assert ids["here"] == ids["there"]
    with pytest.raises(RecipeError, match=r"dedup\.against: memory://lake/4: not a dataset"):
        run("memory://lake/5", parts[1], against=["memory://lake/4"])
    index = next(name for name in OBJECTS if name.startswith("memory://lake/1/index/"))
    del OBJECTS[index]
    with pytest.raises(CorruptError, match=f"{index}: is missing"):
        run("memory://lake/5", parts[1], against=["memory://lake/1"])
    OBJECTS.clear()


def test_containment_goes_by_the_index_too(parts, tmp_path):
    near = {"measure": "containment", "threshold": 0.7, "size_ratio": 0.5}
    run(tmp_path / "1", parts[0], near=near)
    run(tmp_path / "2", parts[1], against=[tmp_path / "1"], near=near)
    run(tmp_path / "all", *parts[:2], near=near)
    whole, part = rows(tmp_path / "all"), rows(tmp_path / "2")
    assert part == {name: whole[name] for name in part}


def test_equal_contents_alone_go_by_an_index_without_sets(parts, tmp_path):
    near = {"enabled": False}
    run(tmp_path / "1", parts[0], near=near)
    run(tmp_path / "2", *parts[2:], against=[tmp_path / "1"], near=near)
    run(tmp_path / "all", parts[0], *parts[2:], near=near)
    whole, part = rows(tmp_path / "all"), rows(tmp_path / "2")
    assert part == {name: whole[name] for name in part}
    matched = {row["matched"] for row in part.values() if row.get("reason") == "exact_duplicate"}
    assert matched & set(rows(tmp_path / "1"))
    assert not any(pq.read_table(tmp_path / "1" / "index")["set"].to_pylist())


def test_without_an_index_nothing_changes_but_the_index(parts, tmp_path):
    indexed, plain = run(tmp_path / "1", parts[0]), run(tmp_path / "2", parts[0], index=False)
    assert indexed.content.shards["kept"] == plain.content.shards["kept"]
    assert set(plain.content.shards) == {"kept", "dropped"}
    assert indexed.content.stats["index"] == {"readable": 40, "banded": 40}


def test_what_does_not_fit_is_refused(parts, tmp_path):
    run(tmp_path / "1", parts[0])
    run(tmp_path / "2", parts[1], against=[tmp_path / "1"])
    run(tmp_path / "plain", parts[0], index=False)
    out = tmp_path / "out"
    for against, near, message in (
        (["plain"], {}, "plain: has no signature index"),
        (["1"], {"ngram": 4}, r"1: was made with another dedup.near.ngram \(5\) .* \(4\)"),
        (["2"], {}, "2: was held against datasets .* list all of them"),
        (["1", "1"], {}, "is in dedup.against twice"),
        (["nowhere"], {}, "no such folder"),
    ):
        with pytest.raises(RecipeError, match=message):
            run(out, parts[2], against=[tmp_path / name for name in against], near=near)
    for index, against in ((False, [tmp_path / "1"]), (True, [])):
        with pytest.raises(RecipeError, match=r"near\.keep = 'longest'"):
            run(out, parts[2], against=against, near={"keep": "longest"}, index=index)
    off = {"near": {"enabled": False}, "exact": {"enabled": False}}
    for index, against, key in ((True, [], "index"), (False, [tmp_path / "1"], "against")):
        with pytest.raises(RecipeError, match=rf"dedup\.{key}: exact.enabled and near.enabled are"):
            run(out, parts[2], against=against, index=index, **off)
    with pytest.raises(RecipeError, match=r"repeats\.unit = 'line'"):
        run(out, parts[2], against=[tmp_path / "1"], repeats={"unit": "line"})


def test_a_damaged_index_is_refused(parts, tmp_path):
    run(tmp_path / "1", parts[0])
    path = next((tmp_path / "1" / "index").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="does not match its manifest"):
        run(tmp_path / "2", parts[1], against=[tmp_path / "1"])
    path.unlink()
    with pytest.raises(CorruptError, match="is missing"):
        run(tmp_path / "2", parts[1], against=[tmp_path / "1"])
