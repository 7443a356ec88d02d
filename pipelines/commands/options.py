"""Options that the commands which run a Beam job share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipelines.runners import JobOptions

F = TypeVar("F", bound=Callable[..., Any])

workers_option = click.option(
    "--workers", default=1, show_default=True, help="Worker processes on this machine."
)


def runner_options(function: F) -> F:
    """Add `--workers`, `--runner`, `--keep-work` and what follows `--`: options of Beam."""
    function = click.argument("beam_args", nargs=-1, type=click.UNPROCESSED)(function)
    function = click.option("--keep-work", is_flag=True, help="Keep the intermediate files.")(
        function
    )
    function = click.option(
        "--runner", default="", help="A Beam runner, e.g. SparkRunner. [default: in process]"
    )(function)
    return workers_option(function)


def job_options(
    workers: int,
    runner: str,
    beam_args: tuple[str, ...],
    *,
    keep_work: bool,
    quiet: bool,
    range_bytes: int | None = None,
) -> "JobOptions":
    """Return checked job options.

    Raises:
        RecipeError: a runner or mode that loses data, or an option that Beam does not know.
    """
    from pipelines.runners import JobOptions, RunnerOptions, check_policy

    options = JobOptions(
        RunnerOptions(runner, workers, beam_args), keep_work=keep_work, quiet=quiet
    )
    check_policy(options.runner)
    if range_bytes is None:
        return options
    return JobOptions(options.runner, range_bytes, keep_work, quiet)
