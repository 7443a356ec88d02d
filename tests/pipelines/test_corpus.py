"""The demo corpus, built from a small fake installation."""

import json
from pathlib import Path

import msgspec
import pytest
import zstandard
from click.testing import CliRunner

from pipelines.demo import cli, corpus
from shards.errors import InputError


def install(
    site: Path, name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = ()
) -> None:
    """Lay out a distribution as pip does, RECORD included."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": "\n".join(
            [
                f"Name: {name}",
                f"Version: {version}",
                *(f"Requires-Dist: {requirement}" for requirement in requires),
                f"\nAbout {name}.\n",
            ]
        ).encode(),
        f"{info}/licenses/LICENSE": b"Do what you like.\n",
        f"{info}/entry_points.txt": b"[console_scripts]\n",
    }
    rows = [f"{path},sha256=mark-of-{len(data)},{len(data)}" for path, data in files.items()]
    rows += [f"{info}/RECORD,,", f"{info}/INSTALLER,,", "../../bin/run,sha256=x,9"]
    files[f"{info}/RECORD"] = "\n".join(rows).encode()
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Assay, the package `a` that it requires, a small standard library, and every share 1."""
    found = {"purelib": tmp_path / "site", "stdlib": tmp_path / "lib"}
    found["platlib"] = found["purelib"]
    for path in found.values():
        path.mkdir(exist_ok=True)
    (found["stdlib"] / "json").mkdir()
    (found["stdlib"] / "json" / "tool.py").write_text('"""Tool."""\n')
    (found["stdlib"] / "_sysconfigdata_x.py").write_text('"""Paths of the build."""\n')
    install(found["purelib"], "assay_corpus", "0", {"x.py": b'"""X."""\n'}, ("a>=1", "b[c]; x"))
    install(
        found["purelib"],
        "a",
        "1.0",
        {
            "a/__init__.py": b'"""About a."""\n',
            "a/tests/test_a.py": b'"""A test."""\n',
            "a/README.md": b"# a\r\n",
            "a/notes.txt": b"notes",
            "a/binary.txt": b"\xff\xfe",
            "a/old.py": b'print """no longer Python"""\n',
            "a/surrogate.py": b'"""\\ud800"""\n',
            "a/empty.txt": b" \n",
            "a/data.bin": b"binary",
            "NOTICE": b"Notice.",
        },
    )
    (found["purelib"] / "a" / "stray.py").write_text('"""Not in RECORD."""\n')
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(found[name]))
    monkeypatch.setattr(corpus, "SOURCE_SHARE", 1.0)
    monkeypatch.setattr(corpus, "DOCSTRING_SHARE", 1.0)
    return found


def records(out: Path) -> dict[str, dict[str, str]]:
    found = {}
    for path in sorted(out.glob("*.jsonl.zst")):
        with zstandard.open(path, "rb", zstandard.ZstdDecompressor()) as file:
            for line in file.read().splitlines():
                record = json.loads(line)
                found[record["url"]] = record
    return found


def test_takes_what_the_records_list_and_nothing_else(paths, tmp_path):
    stats = corpus.build_corpus(tmp_path / "out")
    found = records(tmp_path / "out")
    assert {url: record["text"] for url, record in found.items() if "#source" not in url} == {
        "dist:a/NOTICE#licence": "Notice.",
        "dist:a/a-1.0.dist-info/METADATA#metadata": "About a.\n",
        "dist:a/a-1.0.dist-info/licenses/LICENSE#licence": "Do what you like.\n",
        "dist:a/a/README.md#readme": "# a\r\n",
        "dist:a/a/__init__.py#docstrings": "About a.",
        "dist:a/a/notes.txt#docs": "notes",
        "stdlib:json/tool.py#docstrings": "Tool.",
    }
    assert {url for url in found if "#source" in url} == {
        "dist:a/a/__init__.py#source",
        "dist:a/a/old.py#source",
        "dist:a/a/surrogate.py#source",
        "dist:a/a/tests/test_a.py#source",
        "stdlib:json/tool.py#source",
    }
    assert stats["skipped"] == {"empty": 1, "undecodable": 2, "unparsable": 1}
    assert stats["distributions"] == {"a": "1.0"}
    assert stats["documents"] == len(found)
    assert stats["bytes"] == sum(len(r["text"].encode()) for r in found.values())
    assert all(record["source"] == url.split("#")[1] for url, record in found.items())
    assert len({record["id"] for record in found.values()}) == len(found)


def test_two_builds_give_the_same_bytes_without_paths_of_the_machine(paths, tmp_path):
    for out in ("one", "two"):
        corpus.build_corpus(tmp_path / out)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / out).iterdir()} for out in ("one", "two")
    )
    assert one == two
    assert str(tmp_path).encode() not in one["corpus.json"]
    assert not any(str(tmp_path) in record["text"] for record in records(tmp_path / "one").values())


def test_keeps_a_whole_corpus_and_rebuilds_a_stale_or_damaged_one(paths, tmp_path):
    out = tmp_path / "out"
    stats = corpus.build_corpus(out)
    part = out / stats["files"][0]["path"]
    before = part.stat().st_mtime_ns
    assert corpus.build_corpus(out) == stats
    assert part.stat().st_mtime_ns == before

    part.write_bytes(b"")
    assert corpus.build_corpus(out) == stats
    assert part.stat().st_size == stats["files"][0]["bytes"]

    install(paths["purelib"], "b", "2", {"b.py": b'"""B."""\n'})
    assert corpus.build_corpus(out)["distributions"] == {"a": "1.0", "b": "2"}


def test_takes_what_assay_requires_and_no_installers_or_development_tools(paths, tmp_path):
    site = paths["purelib"]
    install(site, "b", "1", {}, ("C_c.d (>=1)", "pip", "missing", "e ; extra == 'dev'"))
    for name in ("c.c_d", "e", "pip", "other"):
        install(site, name, "2", {})
    stats = corpus.build_corpus(tmp_path / "out")
    assert stats["distributions"] == {"a": "1.0", "b": "1", "c-c-d": "2"}


def test_a_listed_file_that_is_gone_is_counted(paths, tmp_path):
    (paths["purelib"] / "a" / "notes.txt").unlink()
    assert corpus.build_corpus(tmp_path / "out")["skipped"]["missing"] == 1


def test_frames_are_independent_and_end_at_lines(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FRAME_BYTES", 100)
    corpus.build_corpus(tmp_path)
    lines = 0
    for path in tmp_path.glob("*.zst"):
        rest = path.read_bytes()
        while rest:
            size = zstandard.get_frame_parameters(rest).content_size
            frame = zstandard.ZstdDecompressor().decompressobj()
            text = frame.decompress(rest)
            assert len(text) == size
            assert text.endswith(b"\n")
            lines += text.count(b"\n")
            rest = frame.unused_data
    assert lines == len(records(tmp_path))


def test_module_docstrings_are_those_of_public_names():
    source = '''
"""Module."""
class A:
    """Class."""
    def f(self):
        """Method."""
        def inner():
            """Inner."""
    def _g(self):
        """Private."""
class _B:
    """Private."""
async def h():
    """
    Two
      lines.
    """
def bare(): ...
'''
    assert corpus.module_docstrings(source) == (
        "Module.\n\nA\n\nClass.\n\nA.f\n\nMethod.\n\nh\n\nTwo\n  lines."
    )


def test_without_an_installed_assay_there_is_no_corpus(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(tmp_path / "none"))
    with pytest.raises(InputError, match="assay-corpus is not installed in "):
        corpus.build_corpus(tmp_path / "out")


def test_the_command_reports_each_kind(paths, tmp_path):
    result = CliRunner().invoke(cli.corpus_command, ["--out", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 0
    stats = msgspec.json.decode((tmp_path / "out" / corpus.STATS).read_bytes())
    assert [line.split()[0] for line in result.stdout.splitlines()] == [*stats["kinds"], "all"]
