import os
import signal
import sys
import time

import click
import numpy as np
import pytest

import shards.errors
from shards.console import Terminated, quiet_option, recipe_options, run
from shards.errors import AssayError, CorruptError, InputError, RecipeError


@pytest.fixture
def exit_code(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    def run_with(function, *args):
        monkeypatch.setattr(sys, "argv", ["assay", *args])
        with pytest.raises(SystemExit) as stop:
            run(click.command()(function), "assay")
        return stop.value.code

    yield run_with
    signal.signal(signal.SIGTERM, before)


class OutOfMemoryError(RuntimeError):
    """torch's, by its name."""


def np_memory_error():
    with pytest.raises(MemoryError) as raised:
        np.empty(10**18, np.uint8)
    return raised.value


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (RecipeError("bad [key]"), 2, "error: bad [key]"),
        (InputError("no file"), 2, "error: no file"),
        (CorruptError("block 3"), 1, "error: block 3"),
        (KeyboardInterrupt(), 130, "run the same command again and it resumes"),
        (Terminated(), 143, "run the same command again and it resumes"),
        (click.UsageError("no such option"), 2, "no such option"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: '/x'"),
        (MemoryError(), 1, "does not fit into this machine's memory; make the sizes"),
        (np_memory_error(), 1, "memory (Unable to allocate 888. PiB for an array"),
        (
            RuntimeError("x] DefaultCPUAllocator: can't allocate memory: you"),
            1,
            "does not fit into",
        ),
        (
            RuntimeError("Storage size calculation overflowed with sizes=[9]"),
            1,
            "does not fit into",
        ),
        (OutOfMemoryError("CUDA out of memory.\nTried"), 1, "memory (CUDA out of memory.); make"),
        (RuntimeError("shapes differ"), 1, "RuntimeError: shapes differ: this is a bug in Assay"),
        (ZeroDivisionError("by [b]"), 1, "ZeroDivisionError: by [b]: this is a bug in Assay"),
    ],
)
def test_errors_become_a_message_and_an_exit_code(exit_code, capsys, error, code, shown):
    assert exit_code(failing(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert shown in err
    assert "Traceback" not in err


def test_success_is_0(exit_code):
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: None, "--help") == 0
    assert exit_code(lambda: click.get_current_context().exit(3)) == 3


def test_a_bug_shows_its_traceback_when_asked(exit_code, capsys, monkeypatch):
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    assert exit_code(failing(ZeroDivisionError())) == 1
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_ends_a_command_like_an_interrupt(exit_code, capsys):
    def command():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert exit_code(command) == 143
    assert "it resumes" in capsys.readouterr().err


def test_shared_options(exit_code, capsys):
    @recipe_options
    @quiet_option
    def command(recipe, overrides, dry_run, quiet):
        click.echo(f"{recipe} {overrides} {dry_run} {quiet}")

    assert exit_code(command, "r.toml", "--set", "a=1", "--set", "b=2", "--dry-run") == 0
    assert capsys.readouterr().out == "r.toml ('a=1', 'b=2') True False\n"


def test_the_docstring_shows_the_whole_tree():
    for name, value in vars(shards.errors).items():
        if isinstance(value, type) and issubclass(value, AssayError):
            assert name in shards.errors.__doc__
