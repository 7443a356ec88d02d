"""Options that the commands which run a Beam job share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from pipelines.runners import JobOptions
    from shards.manifest import Manifest

F = TypeVar("F", bound=Callable[..., Any])

events_option = click.option(
    "--json",
    "events",
    is_flag=True,
    help="Write progress and result to stdout, one JSON object a line.",
)

workers_option = click.option(
    "--workers", default=1, show_default=True, help="Worker processes on this machine."
)


def runner_options(function: F) -> F:
    """Add `--workers`, `--runner`, `--keep-work`, `--json` and what follows `--` for Beam."""
    function = click.argument("beam_args", nargs=-1, type=click.UNPROCESSED)(function)
    function = click.option("--keep-work", is_flag=True, help="Keep the intermediate files.")(
        function
    )
    function = click.option(
        "--runner", default="", help="A Beam runner, e.g. SparkRunner. [default: in process]"
    )(function)
    return workers_option(events_option(function))


def dataset_event(manifest: "Manifest", out: str, *, ran: bool) -> None:
    """Write the last line of `--json`: what was made, or was there (`ran` false)."""
    total = manifest.content.total
    facts = {
        "event": "dataset",
        "out": out,
        "dataset_id": manifest.dataset_id,
        "kind": manifest.content.kind,
        "ran": ran,
        **msgspec.to_builtins(total),
    }
    click.echo(msgspec.json.encode(facts))


def job_options(
    workers: int,
    runner: str,
    beam_args: tuple[str, ...],
    *,
    keep_work: bool,
    quiet: bool,
    events: bool = False,
    rehash: bool = False,
    range_bytes: int | None = None,
) -> "JobOptions":
    """Return checked job options.

    Raises:
        RecipeError: a runner or mode that loses data, or an option that Beam does not know.
    """
    from msgspec.structs import replace

    from pipelines import stores
    from pipelines.runners import JobOptions, RunnerOptions, check_policy

    runner_options = RunnerOptions(runner, workers, beam_args)
    check_policy(runner_options)
    if beam_args:
        stores.use_options(list(beam_args))  # paths are looked at before Beam's first pipeline
    options = JobOptions(
        runner_options,
        keep_work=keep_work,
        quiet=quiet or events,
        events=events,
        rehash=rehash,
    )
    return options if range_bytes is None else replace(options, range_bytes=range_bytes)
