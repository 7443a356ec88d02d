"""File helpers: atomic writes, and patterns that name what is wrong."""

import os
import re

import pytest
from click.testing import CliRunner

from pipelines import files
from pipelines.commands.curate import curate_command
from pipelines.commands.score import score_command
from pipelines.commands.tokenize import tokenize_command
from shards.errors import CorruptError, InputError, PlatformError
from tests.pipelines.damage import every_damage


def test_write_is_atomic_and_leaves_no_partial_file(tmp_path):
    path = str(tmp_path / "deep" / "file.bin")
    files.write_atomic(path, b"one")
    files.write_atomic(path, memoryview(b"two"))
    assert files.read_bytes(path) == b"two"
    assert [item.name for item in (tmp_path / "deep").iterdir()] == ["file.bin"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = str(tmp_path / "file.bin")
    files.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        files.write_atomic(path, "not bytes")
    assert files.read_bytes(path) == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlatformError, match=r"file/x\.bin: cannot be written: "):
        files.write_atomic(str(tmp_path / "file" / "x.bin"), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_expand_keeps_the_order_of_patterns_and_lists_each_file_once(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    found = files.expand([str(tmp_path / "c.md"), str(tmp_path / "*.txt"), str(tmp_path / "a.txt")])
    assert [path.rsplit("/", 1)[1] for path, _ in found] == ["c.md", "a.txt", "b.txt"]
    assert [size for _, size in found] == [4, 5, 5]


def test_expand_finds_files_in_the_folder_one_is_in_and_names_with_brackets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b[1].txt", "b1.txt"):
        (tmp_path / name).write_text(name)
    assert [path for path, _ in files.expand(["*.txt"])] == ["a.txt", "b1.txt", "b[1].txt"]
    assert files.expand(["b[1].txt"]) == [("b[1].txt", 8)]
    assert files.expand(["a.txt", "./a.txt", str(tmp_path / "a.txt")]) == [("a.txt", 5)]


def test_expand_refuses_names_that_no_manifest_can_hold(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(InputError, match=r"caf\\xe9\.txt': the file's name is not UTF-8"):
        files.expand([str(tmp_path / "*.txt")])
    with pytest.raises(InputError, match="empty name"):
        files.expand([""])


@pytest.mark.parametrize(
    ("pattern", "words"), [("none.jsonl", "no such file"), ("", "is a folder")]
)
def test_expand_names_a_pattern_that_cannot_be_used(tmp_path, pattern, words):
    with pytest.raises(InputError, match=words) as caught:
        files.expand([str(tmp_path / pattern)])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///data/out", "is a file here; write its path, /data/out$"),
        ("FILE:///data/out", "write its path"),
        ("nowhere://bucket/out", "Beam knows no file system nowhere:// here"),
    ],
)
def test_urls_that_cannot_be_are_errors_of_the_one_who_asked(url, words, tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    (tmp_path / "x.jsonl").write_text('{"text": "x"}')
    recipe = [str(tmp_path / "recipe.toml"), "--set", f"input.paths=['{tmp_path}/x.jsonl']"]
    for command, words_ in (
        (score_command, ["--data", url, "--run", "r", "--out", str(tmp_path / "o")]),
        (tokenize_command, [*recipe[:1], "--data", url, "--tokenizer", "t", "--out", "o"]),
        (curate_command, [*recipe, "--out", url]),
    ):
        error = CliRunner().invoke(command, words_).exception
        assert isinstance(error, InputError)
        assert re.search(words, str(error))


def test_delete_takes_its_path_as_it_is(tmp_path):
    (tmp_path / "out1").write_text("kept")
    (tmp_path / "out[1]").mkdir()
    files.delete(str(tmp_path / "out[1]"))
    files.delete(str(tmp_path / "out[1]"))
    assert [item.name for item in tmp_path.iterdir()] == ["out1"]


def test_open_file_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt: cannot be opened: No such file"):
        files.open_file(str(tmp_path / "gone.txt"))


@pytest.mark.parametrize("data", [b"", b"some rows"])
def test_a_hashed_file_is_none_after_any_damage(tmp_path, data):
    path = tmp_path / "rows"
    assert files.read_hashed(str(path)) is None
    assert not files.stands(str(path))
    files.write_hashed(str(path), data)
    good = path.read_bytes()
    assert files.need_hashed(str(path), "x") == data
    for bad in every_damage(good):
        path.write_bytes(bad)
        assert files.read_hashed(str(path)) is None
        assert not files.stands(str(path))
    with pytest.raises(CorruptError, match=r"rows: is missing, or its bytes .*; delete the-folder"):
        files.need_hashed(str(path), "the-folder")
