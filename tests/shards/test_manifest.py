import json

import pytest

from shards.errors import CorruptError, DatasetError
from shards.hashing import canonical_json
from shards.manifest import (
    FORMAT,
    MANIFEST,
    Content,
    Counts,
    InputEntry,
    ShardEntry,
    check_files,
    current_manifest,
    dataset_id,
    encode_manifest,
    new_manifest,
    read_manifest,
)


def content(**changes):
    shard = ShardEntry(path="kept/a", bytes=1, sha256="00", blocks=["11"], documents=1)
    fields = {
        "kind": "documents",
        "shards": {"kept": [shard]},
        "total": Counts(read=1, kept=1),
        "sources": {"web": Counts(read=1, kept=1)},
        "inputs": [InputEntry(hash="aa", bytes=9)],
        "recipe": {"b": [1, 2.5, None, True], "a": {"ü": "é"}},
        "stats": {"tiny": 1e-300, "third": 1 / 3},
    }
    return Content(**{**fields, **changes})


def write(folder, manifest):
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


def test_round_trip_and_same_bytes_again(tmp_path):
    manifest = new_manifest(content(), stage_key="key", run={"host": "h", "seconds": 0.1})
    write(tmp_path, manifest)
    read = read_manifest(tmp_path)
    assert (read.content, read.run, read.stage_key) == (content(), manifest.run, "key")
    assert encode_manifest(read) == encode_manifest(manifest)


def test_the_id_depends_on_the_content_only():
    one = new_manifest(content(), stage_key="a", run={"host": "h"})
    other = new_manifest(content(), stage_key="b", run={"host": "i"})
    assert one.dataset_id == other.dataset_id == dataset_id(content())
    reordered = content(recipe={"a": {"ü": "é"}, "b": [1, 2.5, None, True]})
    assert dataset_id(reordered) == one.dataset_id
    assert dataset_id(content(definitions={"words": "2"})) != one.dataset_id


def test_says_why_a_folder_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"not a dataset \(no manifest\.json\)"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"manifest\.json: not a manifest: .*delete it and run"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 1, "dataset_id": 3}', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"manifest\.json: not a manifest: .*got `int`"):
        current_manifest(tmp_path, "key")
    with pytest.raises(DatasetError, match="is a file; give the dataset's folder"):
        read_manifest(tmp_path / MANIFEST)


def test_says_that_a_manifest_was_changed(tmp_path):
    manifest = new_manifest(content(), stage_key="key", run={"host": "h"})
    write(tmp_path, manifest)
    path = tmp_path / MANIFEST
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"kept/a"', b'"kept/b"'))
    with pytest.raises(DatasetError, match="states dataset id"):
        read_manifest(tmp_path)
    for old, new in [(b'"key"', b'"kez"'), (b'"h"', b'"i"'), (b"\n ", b"\n\t")]:
        path.write_bytes(raw.replace(old, new, 1))
        with pytest.raises(CorruptError, match="do not match its check"):
            read_manifest(tmp_path)


def test_another_format_is_refused(tmp_path):
    plain = json.loads(encode_manifest(new_manifest(content(), stage_key="", run={})))
    (tmp_path / MANIFEST).write_bytes(canonical_json({**plain, "format": FORMAT + 1, "new": 1}))
    with pytest.raises(DatasetError, match=f"format {FORMAT + 1}, but this version"):
        read_manifest(tmp_path)


def test_is_current(tmp_path):
    shard = tmp_path / "kept/a"
    shard.parent.mkdir()
    shard.write_bytes(b"1")
    assert not current_manifest(tmp_path, "key")
    write(tmp_path, new_manifest(content(), stage_key="key", run={}))
    assert current_manifest(tmp_path, "key")
    assert not current_manifest(tmp_path, "other")


def test_a_dataset_that_lost_a_shard_is_not_current(tmp_path):
    manifest = new_manifest(content(), stage_key="key", run={})
    write(tmp_path, manifest)
    assert not current_manifest(tmp_path, "key")
    with pytest.raises(DatasetError, match=r"kept/a: shard is missing; .*`assay curate`"):
        check_files(tmp_path, manifest)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/a").write_bytes(b"")
    assert not current_manifest(tmp_path, "key")
    with pytest.raises(CorruptError, match=r"kept/a: 0 bytes, expected 1"):
        check_files(tmp_path, manifest)
