import click
import pytest

import shards.errors
from shards.console import quiet_option, recipe_options, run
from shards.errors import AssayError, CorruptError, InputError, RecipeError


def exit_code(function, *args):
    command = click.command()(function)
    with pytest.raises(SystemExit) as stop:
        main = command.main
        command.main = lambda **options: main(args=list(args), **options)
        run(command, "assay")
    return stop.value.code


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
        (click.UsageError("no such option"), 2, "no such option"),
        (click.exceptions.Exit(5), 5, ""),
    ],
)
def test_errors_become_a_message_and_an_exit_code(capsys, error, code, shown):
    assert exit_code(failing(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert shown in err
    assert "Traceback" not in err


def test_success_is_0_and_bugs_are_not_hidden():
    assert exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run(click.command()(failing(ZeroDivisionError())), "assay")


def test_shared_options(capsys):
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
