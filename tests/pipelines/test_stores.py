"""Beam's own S3 and HDFS file systems, each over a client in memory."""

from types import SimpleNamespace

import pytest
from apache_beam.io import hadoopfilesystem
from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3.fake_client import FakeS3Client
from apache_beam.io.filesystems import FileSystems
from hypothesis import given
from hypothesis import strategies as st

from pipelines import files, stores
from pipelines.commit import WORK
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions, RunnerOptions
from shards.errors import InputError, PlatformError
from tests.pipelines.fake_hdfs import FakeHdfs, HdfsError
from tests.pipelines.memory_files import OBJECTS, MemoryFileSystem

_HDFS = ("--hdfs_host=namenode", "--hdfs_port=9870", "--hdfs_user=assay")


@pytest.fixture
def s3(monkeypatch):
    """Beam's S3FileSystem; its client refuses to be made without options, as the real one."""
    client = FakeS3Client()

    def make(options):
        assert options is not None
        return client

    monkeypatch.setattr(s3io, "boto3_client", SimpleNamespace(Client=make), raising=False)
    monkeypatch.setattr(s3io, "BOTO3_INSTALLED", True)
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    return client


@pytest.fixture
def hdfs(monkeypatch):
    """Beam's HadoopFileSystem, told where its name node is."""
    client = FakeHdfs()
    package = SimpleNamespace(InsecureClient=lambda *_, **__: client, HdfsError=HdfsError)
    monkeypatch.setattr(hadoopfilesystem, "hdfs", package)
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    stores.use_options(list(_HDFS))
    return client


@pytest.fixture(params=["s3", "hdfs", "memory"])
def base(request, monkeypatch):
    """A folder on each store."""
    if request.param != "memory":
        request.getfixturevalue(request.param)
    OBJECTS.clear()
    yield f"{request.param}://lake/folder"
    OBJECTS.clear()


def test_a_file_is_written_again_read_and_deleted(base):
    path = f"{base}/deep/file"
    for data in (b"one", b"one", b"another"):
        files.write_atomic(path, data)
        assert (files.read_bytes(path), files.size(path)) == (data, len(data))
    assert files.names(f"{base}/deep") == ["file"]
    files.delete(path)
    files.delete(path)
    assert (files.exists(path), files.size(path), files.names(f"{base}/deep")) == (False, -1, [])


def test_a_folder_goes_with_all_that_is_in_it_and_nothing_beside_it(base):
    inside = [f"{base}/work/{name}" for name in ("a", "b/c", "b/d/e", "b/d/f", "z")]
    beside = [f"{base}/work2/a", f"{base}/work.json", f"{base}/wor"]
    for path in (*inside, *beside):
        files.write_atomic(path, b"x")
    files.delete(f"{base}/work")
    assert not any(map(files.exists, inside))
    assert all(map(files.exists, beside))


def test_what_a_console_makes_for_a_folder_is_no_name_in_it():
    OBJECTS.update({"memory://lake/a/": b"", "memory://lake/a/b": b"", "memory://lake/a/c": b""})
    assert files.names("memory://lake/a", 1) == ["b"]
    assert files.names("memory://lake/a") == ["b", "c"]
    assert files.expand(["memory://lake/a/*"]) == [
        ("memory://lake/a/b", 0),
        ("memory://lake/a/c", 0),
    ]
    OBJECTS.clear()


@given(
    st.sets(
        st.lists(st.sampled_from(["a", "ab", "b", "é", "x.y"]), min_size=1, max_size=4).map(tuple)
    ),
    st.sampled_from(["a", "ab", "b"]),
    st.booleans(),
)
def test_only_what_is_below_the_folder_goes(paths, folder, console):
    OBJECTS.clear()
    if console:
        OBJECTS[f"memory://{folder}/"] = b""
    OBJECTS.update({"memory://" + "/".join(path): b"" for path in paths})
    files.delete(f"memory://{folder}")
    left = {tuple(name[9:].split("/")) for name in OBJECTS}
    assert left == {path for path in paths if path[0] != folder}
    OBJECTS.clear()


def test_many_files_go_in_few_requests(s3, monkeypatch):
    paths = [f"s3://lake/kept/{number:05d}" for number in range(1200)]
    for path in (*paths, "s3://lake/other"):
        files.write_atomic(path, b"x")
    batches, real = [], s3.delete_batch
    monkeypatch.setattr(s3, "delete_batch", lambda asked: batches.append(asked) or real(asked))
    files.delete_files(paths[:1100])
    assert [len(batch.objects) for batch in batches] == [1000, 100]
    files.delete("s3://lake/kept")
    assert [len(batch.objects) for batch in batches[2:]] == [100]
    assert [name for _, name in s3.files] == ["other"]


def test_a_deletion_that_fails_in_silence_is_an_error(monkeypatch):
    """As GCS's of a folder: Beam only logs what the store refused."""
    OBJECTS["memory://lake/work/a"] = b"x"
    monkeypatch.setattr(MemoryFileSystem, "delete", lambda *_: None)
    with pytest.raises(PlatformError, match="lake/work/a: cannot be deleted: it is still there"):
        files.delete("memory://lake/work")
    OBJECTS.clear()


@pytest.mark.parametrize("bad", ["text", None])
def test_what_is_no_bytes_replaces_no_object(bad):
    files.write_atomic("memory://lake/file", b"old")
    with pytest.raises(TypeError):
        files.write_atomic("memory://lake/file", bad)
    assert OBJECTS.pop("memory://lake/file") == b"old"


def test_a_half_uploaded_object_never_appears(s3, monkeypatch):
    def fail(_request):
        raise s3io.messages.S3ClientError("slow down", 503)

    files.write_atomic("s3://lake/file", b"old")
    monkeypatch.setattr(s3, "upload_part", fail)
    with pytest.raises(PlatformError, match=r"s3://lake/file: cannot be written: .*slow down"):
        files.write_atomic("s3://lake/file", bytes(11 << 20))
    assert files.read_bytes("s3://lake/file") == b"old"


def test_on_hdfs_equal_bytes_stay_where_they_are(hdfs, monkeypatch):
    """Two workers that have one bundle: neither takes the file from under a reader."""
    files.write_atomic("hdfs://lake/file", b"x")
    deleted, real = [], hdfs.delete
    monkeypatch.setattr(
        hdfs, "delete", lambda path, recursive: deleted.append(path) or real(path, recursive)
    )
    files.write_atomic("hdfs://lake/file", b"x")
    assert len(deleted) == 1
    assert ".partial-" in deleted[0]
    assert list(hdfs.files) == ["/lake/file"]


def test_a_write_that_hdfs_refuses_leaves_no_partial_file(hdfs, monkeypatch):
    def refuse(*_):
        raise HdfsError("safe mode")

    monkeypatch.setattr(hdfs, "rename", refuse)
    with pytest.raises(PlatformError, match=r"hdfs://lake/file: cannot be written: .*safe mode"):
        files.write_atomic("hdfs://lake/file", b"x")
    assert not hdfs.files


def test_a_store_that_cannot_be_reached_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    package = SimpleNamespace(InsecureClient=None, HdfsError=HdfsError)
    monkeypatch.setattr(hadoopfilesystem, "hdfs", package)
    with pytest.raises(InputError, match="hdfs://lake/x: Beam cannot get at it: hdfs_host is not"):
        files.exists("hdfs://lake/x")


def test_a_dataset_is_made_and_made_again_in_one_folder(base, corpus, tmp_path):
    lake = base.rpartition("/")[0]
    for path in corpus.iterdir():
        files.write_atomic(f"{lake}/in/{path.name}", path.read_bytes())
    beam_args = _HDFS if base.startswith("hdfs") else ()
    options = JobOptions(RunnerOptions(beam_args=beam_args), quiet=True)

    def run(paths, out, size):
        recipe = {"input": {"paths": [paths]}, "output": {"shard_bytes": size}}
        return curate(curate_recipe(recipe), out, options)

    ids = set()
    for size in (1 << 16, 1 << 22):
        made, ran = run(f"{lake}/in/*", base, size)
        assert ran
        ids.add(made.dataset_id)
        assert files.names(f"{base}/{WORK}") == []
        shards = [entry for entries in made.content.shards.values() for entry in entries]
        names = [
            f"{role}/{name}"
            for role in ("kept", "dropped")
            for name in files.names(f"{base}/{role}")
        ]
        assert sorted(names) == sorted(entry.path for entry in shards)
    assert not run(f"{lake}/in/*", base, size)[1]
    here, _ = run(f"{corpus}/*", str(tmp_path / "here"), size)
    assert here.dataset_id in ids
    assert len(ids) == 2
