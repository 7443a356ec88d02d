"""A job's output folder: whose it is, and that nothing which is not ours is lost."""

import os
import shutil
import threading

import pytest

from pipelines import commit
from pipelines.commit import WORK, check_output, collect_garbage, own_output
from pipelines.curate.inputs import check_apart
from shards.errors import DatasetError, InputError, PlatformError, RecipeError
from shards.manifest import MANIFEST
from tests.pipelines.memory_files import OBJECTS


@pytest.fixture
def out(tmp_path):
    """A folder that looks like an unfinished documents dataset."""
    folder = tmp_path / "out"
    (folder / WORK).mkdir(parents=True)
    (folder / WORK / "lock").touch()
    (folder / "kept").mkdir()
    (folder / "kept" / "00000-of-00001.parquet").write_bytes(b"x")
    (folder / "kept" / "00000-of-00001.parquet.partial-0123abcd").write_bytes(b"x")
    return folder


def test_a_dataset_of_another_kind_is_refused(out):
    check_output(str(out), "documents")
    with pytest.raises(RecipeError, match="holds a documents dataset, which a tokens dataset"):
        check_output(str(out), "tokens")


def test_a_dataset_without_its_manifest_can_be_made_again(out):
    shutil.rmtree(out / WORK)
    check_output(str(out), "documents")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty and not an Assay dataset"):
        check_output(str(out), "documents")


@pytest.mark.parametrize("name", ["notes.txt", "00000-of-00001.parquet.bak", "deep/er"])
def test_a_file_that_is_no_shard_is_named_before_anything_runs(out, name):
    mine = out / "kept" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(RecipeError, match=name.split("/")[0]):
        check_output(str(out), "documents")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", [f"{WORK}/notes.txt", MANIFEST])
def test_a_name_alone_makes_no_folder_ours(tmp_path, name):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('{"name": "my web app"}')
    with pytest.raises(RecipeError, match="not an Assay dataset"):
        check_output(str(tmp_path), "documents")
    assert mine.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is empty; name a folder"),
        (os.fsdecode(b"o\xff"), r"b'o\\xff': the name is not UTF-8"),
        ("x" * 300, "x{200}: File name too long"),
        ("loop", "Symlink loop"),
    ],
)
def test_a_name_that_can_be_no_folder_is_refused(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for check in (lambda: check_output(name, "documents"), lambda: check_apart([], name)):
        with pytest.raises(RecipeError, match=words):
            check()
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize("name", ["out*", "out?", "out[1]"])
def test_a_pattern_on_a_remote_store_is_refused(name):
    with pytest.raises(RecipeError, match="choose another --out"):
        check_output(f"memory://lake/{name}", "documents")


@pytest.fixture
def lake():
    """A store of objects, where a documents dataset's shards are in `memory://lake/out`."""
    OBJECTS.clear()
    OBJECTS["memory://lake/out/kept/00000-of-00001.parquet"] = b"x"
    yield OBJECTS
    OBJECTS.clear()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("notes.txt", "documents", "out: is not empty and not an Assay dataset"),
        (f"{WORK}/notes.txt", "documents", "out: is not empty and not an Assay dataset"),
        (MANIFEST, "documents", "out: is not empty and not an Assay dataset"),
        ("kept/notes.txt", "documents", "out/kept/notes.txt: is not a shard"),
        ("kept/deep/00000-of-00001.parquet", "documents", "out/kept/deep/.*: is not a shard"),
        (f"{WORK}/lock", "tokens", "holds a documents dataset, which a tokens dataset would"),
        ("kept/00001-of-00001.parquet", "tokens", "is not empty and not an Assay dataset"),
    ],
)
def test_what_a_job_would_destroy_on_a_store_is_refused(lake, name, kind, words):
    lake[f"memory://lake/out/{name}"] = b'{"name": "my web app"}'
    before = dict(lake)
    with (
        pytest.raises(RecipeError, match=words),
        own_output("memory://lake/out", kind, keep_work=False),
    ):
        pass
    assert lake == before


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("kept/00001-of-00002.parquet", b""),
        (f"{WORK}/lock", b"host 1"),
        (MANIFEST, b'{"dataset_id": ""}'),
        ("kept/", b""),
        ("", b""),
    ],
)
def test_what_a_job_left_on_a_store_is_taken_up(lake, name, data):
    lake[f"memory://lake/out/{name}"] = data
    lake["memory://lake/output/notes.txt"] = b"mine"
    check_output("memory://lake/out", "documents")


def test_a_large_folder_is_not_listed_to_its_end_to_see_whose_it_is(lake, monkeypatch):
    monkeypatch.setattr(commit, "_MOST_LISTED", 3)
    lake.update({f"memory://lake/out/dropped/{n:05d}-of-00009.parquet": b"" for n in range(9)})
    check_output("memory://lake/out", "documents")
    lake["memory://lake/out/tokens/00000-of-00001.arrow"] = b""
    with pytest.raises(RecipeError, match="is not empty and not an Assay dataset"):
        check_output("memory://lake/out", "documents")


def test_a_job_on_a_store_says_whose_its_folder_is_until_it_ends(lake):
    out = "memory://lake/out"
    with pytest.raises(ZeroDivisionError), own_output(out, "documents", keep_work=False):
        raise ZeroDivisionError
    assert f"{out}/{WORK}/lock" in lake
    lake[f"{out}/{WORK}/key/fragments/a"] = b"x"
    with own_output(out, "documents", keep_work=True):
        pass
    assert len(lake) == 3
    with own_output(out, "documents", keep_work=False):
        pass
    assert list(lake) == [f"{out}/kept/00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("memory://lake/out/a.jsonl", True),
        ("memory://lake/out/deep/a.jsonl", True),
        ("memory://lake/out.jsonl", False),
        ("memory://lake/output/a.jsonl", False),
        ("lake/out/a.jsonl", False),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_remote_inputs_are_apart_from_the_output(path, inside, slash):
    found = [("memory://other/a.jsonl", 1), (path, 1)]
    if inside:
        with pytest.raises(InputError, match=f"{path}: lies in the output folder"):
            check_apart(found, f"memory://lake/out{slash}")
    else:
        check_apart(found, f"memory://lake/out{slash}")


def test_the_work_folder_stays_if_the_job_fails_or_if_asked(out):
    with pytest.raises(ZeroDivisionError), own_output(str(out), "documents", keep_work=False):
        raise ZeroDivisionError
    with own_output(str(out), "documents", keep_work=True):
        pass
    assert (out / WORK / "lock").exists()
    with own_output(str(out), "documents", keep_work=False):
        pass
    assert not (out / WORK).exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(out, monkeypatch):
    """Between opening and locking, the job before may have removed the file."""
    real, removed = commit.fcntl.flock, []

    def remove_then_lock(file, how):
        if not removed:
            removed.append((out / WORK / "lock").unlink())
        real(file, how)

    monkeypatch.setattr(commit.fcntl, "flock", remove_then_lock)
    with own_output(str(out), "documents", keep_work=False):
        assert (out / WORK / "lock").exists()
        with pytest.raises(PlatformError, match="another job"):
            own_output(str(out), "documents", keep_work=False).__enter__()


def test_many_jobs_on_one_output_never_overlap(out):
    running, most, done = [], [], []

    def job():
        for _ in range(30):
            try:
                with own_output(str(out), "documents", keep_work=False):
                    running.append(1)
                    most.append(len(running))
                    running.pop()
                    done.append(1)
            except PlatformError:
                pass

    (out / "kept" / "00000-of-00001.parquet.partial-0123abcd").unlink()
    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert done
    assert os.listdir(out / "kept") == ["00000-of-00001.parquet"]  # noqa: PTH208 (order is not the point)


def test_garbage_is_what_no_manifest_lists_and_nothing_else(out):
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="its job has not ended"):
        collect_garbage(str(out))
    (out / MANIFEST).touch()
    (out / WORK / "fragments").mkdir()
    (out / WORK / "fragments" / "a.arrow").write_bytes(b"12345")
    removed, size = collect_garbage(str(out))
    assert [path.rsplit("/", 1)[1] for path in removed] == [
        "a.arrow",
        "00000-of-00001.parquet.partial-0123abcd",
    ]
    assert size == 6
    assert {path.name for path in out.rglob("*") if path.is_file()} == {
        MANIFEST,
        "notes.txt",
        "00000-of-00001.parquet",
    }


def test_garbage_of_an_unfinished_job_goes_when_asked_and_while_no_job_runs(out):
    with (
        own_output(str(out), "documents", keep_work=True),
        pytest.raises(PlatformError, match="another job"),
    ):
        collect_garbage(str(out), unfinished=True)
    collect_garbage(str(out), unfinished=True)
    assert not [path for path in out.rglob("*") if path.is_file()]
    with pytest.raises(DatasetError, match="no job of Assay's has begun"):
        collect_garbage(str(out))
