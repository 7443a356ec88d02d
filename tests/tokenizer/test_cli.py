import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from shards.errors import RecipeError
from tokenizer.cli import tokenizer_command
from tokenizer.folder import INFO


@pytest.fixture
def arguments(tmp_path, texts, make_table, make_dataset):
    make_dataset(tmp_path / "data", [make_table(texts)])
    (tmp_path / "r.toml").write_text("[tokenizer]\nvocab_size = 600\n")
    data, out = str(tmp_path / "data"), str(tmp_path / "tok")
    return ["train", str(tmp_path / "r.toml"), "--data", data, "--out", out]


def invoke(*arguments):
    return CliRunner().invoke(tokenizer_command, arguments, catch_exceptions=False)


def test_train_then_inspect(arguments, tmp_path):
    assert "600 pieces (bpe)" in invoke(*arguments).stdout
    shown = invoke("inspect", str(tmp_path / "tok")).stdout
    facts = json.loads(invoke("inspect", str(tmp_path / "tok"), "--json").stdout)
    assert facts["sha256"] in shown
    assert facts["vocab_size"] == 600
    assert facts["piece_bytes_mean"] > 1
    assert len(facts["longest"][0]) >= len(facts["longest"][-1])


def test_a_dry_run_writes_nothing_and_says_what_is_current(arguments, tmp_path):
    assert "would train:" in invoke(*arguments, "--dry-run").stdout
    assert not (tmp_path / "tok").exists()
    invoke(*arguments, "--quiet")
    assert "which is up to date" in invoke(*arguments, "--dry-run").stdout
    assert "would train" in invoke(*arguments, "--dry-run", "--set", "tokenizer.salt=x").stdout
    assert (tmp_path / "tok" / INFO).exists()


def test_a_dry_run_before_there_are_documents_checks_the_recipe(arguments, tmp_path):
    (tmp_path / "data" / "manifest.json").unlink()
    assert "would train:" in invoke(*arguments, "--dry-run").stdout
    with pytest.raises(RecipeError, match="vocab_size = 5"):
        invoke(*arguments, "--dry-run", "--set", "tokenizer.vocab_size=5")


def test_help_imports_neither_sentencepiece_nor_numba():
    program = (
        "import sys, tokenizer.cli;"
        "print([m for m in ('sentencepiece', 'numba', 'pyarrow') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout.decode().strip() == "[]"
