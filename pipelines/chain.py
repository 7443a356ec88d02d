"""The chain of a recipe: which commands, in which order, with which folders.

Each stage is a fresh process of the `assay` command. Beam and torch then never share one, memory
goes back between stages, and this module knows the other parts by the names of their commands
only. Every command skips itself when its output already has the right stage key.
"""

import ctypes
import re
import signal
import subprocess
import sys
import time

import click
import msgspec

from pipelines import files
from shards.config import Table
from shards.console import console
from shards.errors import RecipeError

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

_TRAINED = ("train", "study")

_SPLIT = "split == 'valid'"
_NEEDS_SPLIT = re.compile(r"\bsplit\s*==\s*['\"]valid['\"]")
"""In a selection of validation documents that has none where nothing is held out."""


class Stage(msgspec.Struct, frozen=True):
    """One command of the chain; `arguments` follow `assay`."""

    label: str
    arguments: tuple[str, ...]


def chain(
    recipe: str,
    table: Table,
    out: str,
    overrides: tuple[str, ...],
    extra: tuple[str, ...] = (),
    workers: int = 1,
    *,
    events: bool = False,
) -> list[Stage]:
    """Return the stages of a recipe: curate, tokenizer, tokenize, then what it has tables for.

    Args:
        recipe: path of the recipe file.
        table: its content; with a `[study]` table the arms are trained and compared, else with a
            `[train]` table one model is trained.
        out: folder for everything.
        overrides: `--set` assignments, passed on.
        extra: options that every stage knows, such as `--quiet`.
        workers: worker processes of the Beam jobs.
        events: have the Beam jobs write their progress as JSON lines, and the rest nothing.
    """
    settings = [word for override in overrides for word in ("--set", override)]

    def folder(name: str) -> str:
        return files.join(out, name)

    def stage(label: str, *arguments: str) -> Stage:
        return Stage(label, (*arguments, *settings, *extra))

    beam = ("--workers", str(workers)) if workers != 1 else ()
    beam = (*beam, "--json") if events else beam
    extra = ("--quiet",) if events else extra
    curated, tokens = folder("curated"), folder("tokens")
    tokenizer = folder("tokenizer")
    stages = [
        stage("curate", "curate", recipe, "--out", curated, *beam),
        stage("tokenizer", "tokenizer", "train", recipe, "--data", curated, "--out", tokenizer),
        stage(
            "tokenize", "tokenize", recipe,
            "--data", curated, "--tokenizer", tokenizer, "--out", tokens, *beam,
        ),
    ]  # fmt: skip
    if "study" in table:
        stages.append(stage("study", "study", recipe, "--data", tokens, "--out", folder("runs")))
    elif "train" in table:
        stages.append(
            stage("train", "train", recipe, "--data", tokens, "--out", folder("runs/train"))
        )
    report = Stage("report", ("report", out, *extra))
    return [*stages, report]


def check_tables(table: Table) -> None:
    """Check what no stage can see alone: values that a later stage needs of an earlier one.

    Values of a wrong type are left to the stage that owns them.

    Raises:
        RecipeError: naming both keys.
    """

    def value(section: str, key: str, default: object) -> object:
        part = table.get(section, {})
        return part.get(key, default) if isinstance(part, dict) else default

    trains = next((name for name in ("study", "train") if name in table), "")
    own = str(value("study", "valid", _SPLIT))  # a single run validates on the default
    if trains and not value("split", "valid_fraction", 0.0) and _NEEDS_SPLIT.search(own):
        raise RecipeError(
            f"split.valid_fraction = 0, but [{trains}] measures bits per byte of held-out"
            " documents; hold some out, e.g. --set split.valid_fraction=0.05, or say with"
            " study.valid which documents no arm reads, e.g. \"source == 'held-out'\""
        )
    wants_dropped = value("tokenize", "documents", "kept") == "all"
    if wants_dropped and value("output", "dropped_text", True) is False:
        raise RecipeError(
            "output.dropped_text = false, but tokenize.documents = 'all' needs the text of dropped"
            " documents; leave out one of the two"
        )


def check_chain(stages: list[Stage]) -> int:
    """Let every stage check its part of the recipe; return the first exit code that is not 0.

    So a misspelt key of the last stage is found before the first one runs, and not after. What a
    stage finds wrong is printed, nothing else. Datasets of an earlier run are not looked at: this
    run may be the one that makes them right.
    """
    for stage in stages:
        dry = ["--dry-run", "--recipe-only"] if stage.label in _TRAINED else ["--dry-run"]
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *stage.arguments, *dry],
            capture_output=True,
            check=False,
            preexec_fn=_end_with_parent,
        )
        if done.returncode:
            sys.stderr.write(done.stderr.decode(errors="replace"))
            return done.returncode
    return 0


def run_chain(stages: list[Stage], *, dry: bool = False, events: bool = False) -> int:
    """Run the stages one after the other; return the first exit code that is not 0, or 0.

    With `dry` they are told by their arguments to do nothing, and a failure leaves nothing to keep.
    With `events` the start and the end of each are JSON lines on stdout.

    A stage prints its own progress, result and errors.
    """

    def event(state: str, label: str, **facts: object) -> None:
        if events:
            plain = {"event": "command", "command": label, "state": state, **facts}
            click.echo(msgspec.json.encode(plain))

    for number, stage in enumerate(stages, start=1):
        if not events:
            console.print(f"[bold cyan]{number}/{len(stages)} {stage.label}[/]")
        event("started", stage.label, number=number, of=len(stages))
        start = time.monotonic()
        code = _run_stage(stage)
        seconds = time.monotonic() - start
        event("finished", stage.label, exit_code=code, seconds=round(seconds, 3))
        if code:
            rest = "" if dry else "; what is done is kept, run again to go on"
            console.print(f"[red]stopped[/] at {stage.label}{rest}")
            return code
        if not events:
            console.print(f"[dim]{stage.label}: {seconds:.1f} s[/]")
    return 0


def _run_stage(stage: Stage) -> int:
    """Run one stage to its end, also when this process is told to stop meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *stage.arguments],
        preexec_fn=_end_with_parent,  # noqa: PLW1509 (this process has no threads)
    )
    # ^C reaches every process of the terminal, these this one alone.
    stops = (signal.SIGTERM, signal.SIGUSR1)
    before = {stop: signal.signal(stop, lambda *_: process.terminate()) for stop in stops}
    try:
        code = process.wait()
        return code if code >= 0 else 128 - code  # killed by a signal: as a shell says it
    except KeyboardInterrupt:
        process.wait()  # it got the same signal and says how to resume
        raise
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


def _end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when its parent dies, even of SIGKILL.

    A stage that went on alone would hold the output when the chain is run again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
