"""The `assay` command: every entry of its table exists, and help costs no heavy import."""

import signal
import subprocess
import sys

import click
import pytest

from pipelines.arguments import STUDY_READERS
from pipelines.cli import COMMANDS, assay, load_command
from pipelines.commands import study


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


STUDY = "study recipe.toml --data tokens --out x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(
    ("command", "module", "code"),
    [
        ("train recipe.toml", "click", 75),
        ("train recipe.toml", "trainer.cli", 75),
        (STUDY, "click", 75),
        (STUDY, "trainer.cli", 75),
        ("study recipe.toml --out x", "click", None),
        ("study suggest --data=x", "click", None),
        ("curate recipe.toml", "click", None),
        ("", "click", None),
    ],
)
def test_a_signal_while_a_command_is_imported_is_a_stop_where_there_is_a_run(
    number, command, module, code
):
    done = interrupted(number, command, module)
    assert done.returncode == (-number if code is None else code)
    assert (b"nothing is lost" in done.stderr) == (code is not None)


def test_an_interrupt_while_a_command_is_imported_has_no_traceback():
    done = interrupted(signal.SIGINT, "curate recipe.toml", "click")
    assert (done.returncode, done.stderr) == (130, b"")


def test_the_commands_of_a_study_are_known_before_they_are_imported():
    assert {*STUDY_READERS, "run"} == set(study.study_command.list_commands(click.Context(assay)))


def interrupted(number: int, command: str, module: str) -> subprocess.CompletedProcess[bytes]:
    """Run `assay` and have it get a signal when it imports a module."""
    script = (
        "import os, sys\n"
        "class Sender:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Sender())\n"
        f"sys.argv[1:] = {command!r}.split()\n"
        "from pipelines.__main__ import main\n"
        "main()\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
