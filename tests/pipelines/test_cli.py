"""The `assay` command: every entry of its table exists, and help costs no heavy import."""

import subprocess
import sys

import click
import pytest

from pipelines.cli import COMMANDS, assay, load_command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_shows_help(name):
    command = load_command(name)
    assert isinstance(command, click.Command)
    assert command.get_help(click.Context(command))


@pytest.mark.parametrize("arguments", ["--help", "inspect --help", "study --help", "curate --help"])
def test_help_imports_neither_beam_nor_torch(arguments):
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}.split(); from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'apache_beam', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command():
    text = assay.get_help(click.Context(assay))
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "nowhere"], 1, "no such folder"),
        (["curate", "nowhere.toml", "--out", "x"], 2, "no such recipe"),
        (["inspekt", "x"], 2, "No such command 'inspekt'; did you mean 'inspect'?"),
        (["study", "sugest", "x"], 2, "no command of assay study; did you mean 'suggest'?"),
    ],
)
def test_errors_are_one_line_without_traceback(arguments, code, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
