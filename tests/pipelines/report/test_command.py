import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipelines.commands.report import report_command
from shards.errors import DatasetError, PlatformError


def invoke(*words):
    return CliRunner().invoke(report_command, [str(word) for word in words], catch_exceptions=False)


def test_writes_the_report_beside_the_chain_and_says_where(chain):
    result = invoke(chain, "--quiet")
    path = chain / "report.html"
    assert str(path) in result.output
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [item.name for item in chain.glob("*partial*")] == []


def test_equal_chains_give_equal_reports(chain, tmp_path):
    for name in ("a.html", "b.html"):
        invoke(chain, "--out", tmp_path / name, "--quiet")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_folder_without_a_chain_writes_nothing(tmp_path):
    with pytest.raises(DatasetError, match="nothing to report"):
        invoke(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(chain):
    with pytest.raises(PlatformError, match=r"recipe\.toml/x\.html: cannot be written"):
        invoke(chain, "--out", chain / "recipe.toml" / "x.html", "--quiet")


def test_needs_neither_beam_nor_torch():
    code = (
        "import sys, pipelines.report.render, pipelines.report.data;"
        "sys.exit(any(name in sys.modules for name in ('apache_beam', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
