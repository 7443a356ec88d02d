import json
import subprocess
import sys

import pytest

from shards.manifest import MANIFEST

from .conftest import build_tokens, flip


@pytest.fixture
def folder(tmp_path):
    return build_tokens(tmp_path / "ds", [3, 4], [5])


def test_verify_says_in_one_line_what_it_verified(call, folder):
    code, out, err = call("verify", folder)
    assert (code, err) == (0, "")
    assert out.startswith(f"{folder}: verified 2 shards (2 blocks, ")
    assert out.count("\n") == 1
    code, out, _ = call("verify", folder, "--quick", "--quiet")
    assert code == 0
    assert "sizes, and a sample of 2 of 2 blocks" in out


def test_verify_names_file_and_block_and_exits_1(call, folder):
    flip(folder / "tokens/00001-of-00002.arrow", 100)
    (folder / "tokens/00000-of-00002.arrow").unlink()
    code, out, err = call("verify", folder)
    assert code == 1
    first, second = out.splitlines()
    assert first == f"{folder}/tokens/00000-of-00002.arrow: is missing"
    assert second.startswith(f"{folder}/tokens/00001-of-00002.arrow block 0: expected xxh3-128 ")
    assert (
        "problems: 2, files: 2; restore these files, or delete them and run `assay tokenize`" in err
    )


def test_pack_and_unpack_give_the_dataset_back(call, folder, tmp_path):
    code, out, _ = call("pack", folder, "--out", tmp_path / "packed")
    assert code == 0
    assert out.startswith(f"packed {tmp_path}/packed: dataset ")
    code, out, _ = call("unpack", tmp_path / "packed", "--out", tmp_path / "again", "--quiet")
    assert code == 0
    assert out.endswith(" verified\n")
    assert call("verify", tmp_path / "again")[0] == 0


def test_inspect_prints_one_json_object_or_tables(call, folder):
    code, out, _ = call("inspect", folder, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["documents"] == {"read": 3, "kept": 3, "dropped": 0}
    assert (facts["shards"], facts["tokens"]) == (2, 12)
    code, out, _ = call("inspect", folder)
    assert code == 0
    assert facts["dataset_id"] in out


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_errors_have_no_traceback(call, folder, command, tmp_path):
    (tmp_path / "bare").mkdir()
    for name, words in (("none", "no such folder"), ("bare", "not a dataset")):
        code, out, err = call(command, tmp_path / name)
        assert (code, out) == (1, "")
        assert words in err
    assert "Traceback" not in err
    code, _, err = call(command, folder / MANIFEST)
    assert code == 1
    assert "is a file; give the dataset's folder" in err.replace("\n", " ")
    assert call(command)[0] == 2
    assert call(command, folder, "--nonsense")[0] == 2


def test_importing_the_commands_loads_nothing_heavy():
    code = (
        "import sys, shards.cli;"
        "print([m for m in ('numba', 'torch', 'pyarrow', 'numpy', 'apache_beam')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_runs_as_a_module(folder):
    command = [sys.executable, "-m", "shards", "verify", str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (out.returncode, out.stderr) == (0, "")
    assert "verified 2 shards" in out.stdout
