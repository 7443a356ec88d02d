"""Which Beam runner runs a job, and which are refused because they lose data.

Measured with Beam 2.77 on 2 cores (DESIGN.md): `direct_running_mode=multi_threading` silently lost
elements in 7 of 18 runs of a real pipeline, `DaskRunner` silently loses outputs, and
`DirectRunner` first tries Prism, which downloads a binary, so that online and offline machines
behave differently. The default is the in-process `FnApiRunner`; `--workers N` starts N worker
processes (`multi_processing`).
"""

import argparse
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import msgspec

import shards.errors
from pipelines import worker
from pipelines.beam import beam
from pipelines.environment import shipped_packages
from shards.console import Terminated
from shards.errors import AssayError, PlatformError, RecipeError

_REFUSED = {
    "daskrunner": "it silently loses outputs",
    "prismrunner": "it downloads a binary at run time, so offline machines behave differently",
    "directrunner": "it tries Prism first, which downloads a binary, so that online and offline"
    " machines behave differently",
    "switchingdirectrunner": "it tries Prism first, which downloads a binary, so that online and"
    " offline machines behave differently",
    "bundlebaseddirectrunner": "it does not support what portable runners do",
}
_ALLOWED = ("DataflowRunner", "FlinkRunner", "PortableRunner", "SparkRunner")
_ANSWER_SECONDS = 10
_THREADS = "multi_threading"
_OWN = {"runner": "--runner", "direct_num_workers": "--workers"}


class RunnerOptions(msgspec.Struct, frozen=True):
    """How to run a job. None of it may change the result, so none of it is in the recipe's hash.

    `runner` is a Beam runner's name or "" for the in-process one; `workers` > 1 starts processes
    on this machine; `beam_args` goes to Beam as it is.
    """

    runner: str = ""
    workers: int = 1
    beam_args: tuple[str, ...] = ()


class JobOptions(msgspec.Struct, frozen=True):
    """How a job is run. `range_bytes` (decompressed) is the unit of the scan's work.

    `quiet` shows no progress, `events` writes it to stdout as JSON lines. `rehash`
    reads every input file again, also those that look unchanged since they were hashed.
    """

    runner: RunnerOptions = RunnerOptions()
    range_bytes: int = 32 << 20
    keep_work: bool = False
    quiet: bool = False
    events: bool = False
    rehash: bool = False


def most_workers() -> int:
    """Return the most worker processes that a job may start: beyond it, memory ends first."""
    return max(16, 4 * (os.cpu_count() or 1))


def check_policy(options: RunnerOptions) -> None:
    """Refuse runners and modes that lose data, and options that Beam would not take.

    Raises:
        RecipeError: with the reason and what to use instead.
    """
    instead = "leave out --runner for the in-process runner, or use --workers N for processes"
    runner = options.runner.rpartition(".")[2].lower()
    if runner in _REFUSED:
        raise RecipeError(f"runner {options.runner!r} is refused: {_REFUSED[runner]}; {instead}")
    if runner and runner not in {name.lower() for name in _ALLOWED}:
        raise RecipeError(
            f"--runner {options.runner!r}: unknown; known are {', '.join(_ALLOWED)}; {instead}"
        )
    if options.workers < 1:
        raise RecipeError(f"--workers {options.workers}: must be at least 1")
    if options.workers > most_workers():
        raise RecipeError(
            f"--workers {options.workers}: this machine has {os.cpu_count()} cores; at most"
            f" {most_workers()}, and more than one a core makes no job faster"
        )
    if runner and options.workers > 1:
        raise RecipeError(
            f"--workers {options.workers} starts processes on this machine; {options.runner} takes"
            " its number of workers from its own options, after --"
        )
    if _THREADS in " ".join(options.beam_args):
        raise RecipeError(
            f"direct_running_mode={_THREADS} is refused: it silently loses elements"
            f" (7 of 18 runs of a real pipeline); use --workers N for processes"
        )
    _check_beam_args(options.beam_args, portable=bool(runner))
    shipped_packages(options.beam_args)


class _Parser(argparse.ArgumentParser):
    """Beam's own parser prints its 200 options and exits when a value is wrong."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"options after --, which go to Beam: {message}")


def _check_beam_args(arguments: tuple[str, ...], *, portable: bool) -> None:
    """Check values and, in process, names; a portable runner's job server has names of its own."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in beam.options.pipeline_options.PipelineOptions.__subclasses__():
        with suppress(argparse.ArgumentError):  # a class of this test, or declared twice
            kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(arguments))
    for name, own in _OWN.items():
        if any(word.split("=")[0] == f"--{name}" for word in arguments):
            raise RecipeError(f"--{name} after --: give Assay's own {own} before it")
    if "--save_main_session" in arguments:
        raise RecipeError(
            "--save_main_session is refused: it pickles whatever the command happens to hold;"
            " workers get Assay with --extra_package or a container image"
        )
    if unknown and not portable:
        raise RecipeError(f"options after --, which go to Beam: unknown: {' '.join(unknown)}")


def run_pipeline(options: RunnerOptions, build: Callable[[Any], None], *, label: str) -> None:
    """Build a Beam pipeline with `build(pipeline)`, run it to the end, and wait.

    Raises:
        AssayError: one raised inside a worker, with its own type and message.
        RecipeError: see `check_policy`.
        PlatformError: a failure inside Beam or a worker.
    """
    check_policy(options)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    with _watch_workers() as lost:
        try:
            beam_options = _pipeline_options(options, label)
            _check_endpoint(beam_options)
            pipeline = beam.Pipeline(runner=_runner(options), options=beam_options)
            build(pipeline)
            pipeline.run().wait_until_finish()
        except KeyboardInterrupt:
            if lost == [f"exit code {worker.NO_POOL}"]:
                raise PlatformError(
                    f"the worker processes of the {label} job could not be started, or the process"
                    " that they are forked from was killed; run again and it resumes"
                ) from None
            if lost:
                raise PlatformError(
                    f"a worker process of the {label} job died ({lost[0]}): out of memory, or"
                    " killed; run again and it resumes, with fewer --workers if memory is short"
                ) from None
            raise
        except Exception as error:
            # A signal inside a DoFn comes back as a RuntimeError.
            for interrupt in (KeyboardInterrupt, Terminated):
                if interrupt.__name__ in str(error):
                    raise interrupt from None
            raise _own_error(error, label) from error


@contextmanager
def _watch_workers() -> Iterator[list[str]]:
    """Interrupt the main thread when a worker process dies; yields a list that then says how.

    Beam waits for ever for the answer of a worker that was killed. It notices the death in a
    thread of its own, whose exception goes nowhere but here. Other threads of Beam fail after the
    job has failed, and would print what has already been reported.
    """
    lost: list[str] = []
    before = threading.excepthook

    def on_thread_error(arguments: threading.ExceptHookArgs) -> None:
        found = re.search(r"exited with return code (-?\d+)", str(arguments.exc_value))
        if found:
            lost.append(f"exit code {found.group(1)}")
            # A real signal, since interrupt_main() does not wake a thread that waits for a lock.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif os.environ.get("ASSAY_DEBUG"):
            before(arguments)

    threading.excepthook = on_thread_error
    try:
        yield lost
    finally:
        threading.excepthook = before


def _runner(options: RunnerOptions) -> Any:
    if options.runner:
        return options.runner
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if options.workers == 1:
        return FnApiRunner()
    # What direct_running_mode=multi_processing does, but with a worker that does not chatter.
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker.command()))


def _pipeline_options(options: RunnerOptions, label: str) -> Any:
    arguments = list(options.beam_args)
    if not options.runner:
        arguments.append(f"--direct_num_workers={options.workers}")
    else:
        arguments += [f"--job_name=assay-{label}"]
    return beam.options.pipeline_options.PipelineOptions(arguments)


def _check_endpoint(beam_options: Any) -> None:
    """Refuse a job server that does not answer: Beam would try for minutes and not say which."""
    kind = beam.options.pipeline_options.PortableOptions
    endpoint = beam_options.view_as(kind).job_endpoint or "embed"
    if endpoint == "embed" or "/" in endpoint:  # Beam starts one itself; gRPC's dns:///, unix:/
        return
    host, colon, port = endpoint.rpartition(":")
    if not (colon and port.isdigit()):
        raise RecipeError(f"--job_endpoint={endpoint}: write it as host:port, e.g. localhost:8099")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PlatformError(
            f"--job_endpoint={endpoint}: no job server answers there ({error}); start it, or give"
            " the host:port at which it listens"
        ) from None


def _own_error(error: Exception, label: str) -> AssayError:
    """Find the AssayError in what Beam raises, without what Beam adds to its message.

    In process that is the error itself; worker processes send their traceback as text.
    """
    message = re.sub(r" \[while running '[^']*'\]", "", str(error)).strip()
    if isinstance(error, AssayError):
        return type(error)(message)
    found = re.findall(
        r"^shards\.errors\.(\w+): (.*?)(?=\n\n|\Z)", message, re.DOTALL | re.MULTILINE
    )
    if found:
        name, text = found[-1]
        type_: type[AssayError] = getattr(shards.errors, name)
        return type_(text.strip())
    last = message.splitlines()[-1] if message else repr(error)
    return PlatformError(f"the {label} job failed: {last} (set ASSAY_DEBUG=1 for the traceback)")
