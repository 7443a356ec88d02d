"""What every Assay command shares at the terminal: errors without tracebacks, options, output.

Rich output goes to stderr (`console`), results that a program may read go to stdout (`echo`).
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from shards.errors import AssayError, PlatformError

F = TypeVar("F", bound=Callable[..., Any])

console = Console(stderr=True, highlight=False)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: like ^C, so that what is done is kept, and processes started here end too."""


def run(command: click.Command, name: str) -> NoReturn:
    """Run a click command as a program.

    Exits with 0, 2 for bad requests, 1 for failures, 130 after ^C and 143 after SIGTERM. Only a
    bug ends in a traceback, and only with ASSAY_DEBUG set.
    """
    if not callable(signal.getsignal(signal.SIGTERM)):  # else who called this knows better
        signal.signal(signal.SIGTERM, _terminate)
    try:
        result = command.main(prog_name=name, standalone_mode=False)
    except AssayError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        console.print("[yellow]stopped:[/] run the same command again and it resumes")
        # click turns what it catches into an Abort
        sys.exit(143 if isinstance(error.__cause__ or error, Terminated) else 130)
    except BrokenPipeError:
        # The reader (head, less) went away; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(str(error), 1)
    except Exception as error:
        if too_large := not_enough_memory(error):
            _fail(str(too_large), too_large.exit_code)
        _fail(
            f"{type(error).__name__}: {error}: this is a bug in Assay; run again with"
            " ASSAY_DEBUG=1 to see where, and report it",
            1,
        )
    # What click returns for `ctx.exit(code)`, `--help` included; our commands return None.
    sys.exit(result if isinstance(result, int) else 0)


def not_enough_memory(error: Exception) -> PlatformError | None:
    """Return what to say of an allocation that failed; None for any other error.

    Python and numpy raise MemoryError and torch OutOfMemoryError on a GPU; its allocator on the CPU
    raises a plain RuntimeError, known by its text only, as no command should import torch for this.
    """
    text = str(error)
    of_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "Storage size calculation overflowed" in text
    )
    if not of_torch and not isinstance(error, MemoryError):
        return None
    first = text.partition("\n")[0]
    return PlatformError(
        f"what was asked for does not fit into this machine's memory{first and f' ({first})'}; make"
        " the sizes in the recipe or options smaller, or use a larger machine"
    )


def _terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who asks twice does not want to wait
    raise Terminated


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("ASSAY_DEBUG"):
        console.print_exception()
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)


def recipe_options(function: F) -> F:
    """Add the RECIPE argument, `--set` and `--dry-run`, which every stage command has."""
    function = click.option(
        "--dry-run", is_flag=True, help="Check the recipe and say what would be done."
    )(function)
    function = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a recipe key, e.g. --set dedup.near.threshold=0.7 (repeatable).",
    )(function)
    return click.argument("recipe", type=click.Path())(function)


def quiet_option(function: F) -> F:
    """Add `--quiet`: no progress display, only the result and errors."""
    return click.option("--quiet", is_flag=True, help="Show no progress, only the result.")(
        function
    )
