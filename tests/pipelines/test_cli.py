"""The `assay` command: every entry of its table exists, and help costs no heavy import."""

import signal
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(
    ("command", "module", "code"),
    [
        ("train", "click", 75),
        ("train", "trainer.cli", 75),
        ("study", "click", 75),
        ("study", "pipelines.commands.study", 75),
        ("curate", "click", None),
    ],
)
def test_a_signal_while_a_command_is_imported_is_a_stop_where_there_is_a_run(
    number, command, module, code
):
    script = (
        "import os, sys\n"
        "class Sender:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Sender())\n"
        f"sys.argv[1:] = [{command!r}, 'recipe.toml']\n"
        "from pipelines.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == (-number if code is None else code)
    assert (b"nothing is lost" in done.stderr) == (code is not None)
