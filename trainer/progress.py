"""What a person sees while models train: a live view in a terminal, plain lines elsewhere, or
nothing."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import TracebackType

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from shards.console import console
from trainer.footprint import size
from trainer.records import Metrics

LINES_PER_RUN = 5
"""Lines that a run leaves in a log file that is not a terminal."""


def _bar_columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _facts(loss: float, tokens_per_s: float, bpb: float | None) -> str:
    """Describe a step: loss in nats per token, bits per byte where known, speed."""
    valid = "" if bpb is None else f"bpb {bpb:.3f} "
    return f"loss {loss:.3f} {valid}{tokens_per_s:,.0f} tok/s"


SPARKS = "▁▂▃▄▅▆▇█"
SPARK_POINTS = 32
SPARK_STEPS = 512
"""Steps whose losses are drawn, the latest."""


def sparkline(values: Sequence[float], width: int = SPARK_POINTS) -> str:
    """Draw values, means of `width` equal parts of them, between their least and their most."""
    count = min(width, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else [0]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    if not means:
        return ""
    low, span = min(means), max(means) - min(means)
    top = len(SPARKS) - 1
    return "".join(SPARKS[round(top * (mean - low) / span) if span else 0] for mean in means)


def measures(row: Metrics, losses: Sequence[float]) -> str:
    """Describe what a step measured besides loss and speed, and draw the latest losses."""
    parts = [f"loss {sparkline(losses)}", f"grad norm {row.grad_norm:.3g}", f"lr {row.lr:.3g}"]
    if row.mfu is not None:
        parts.append(f"MFU {row.mfu:.0%}")
    parts.append(f"data wait {row.wait_share:.1%}")
    if row.memory_bytes is not None:
        parts.append(f"memory {size(row.memory_bytes)}")
    return " · ".join(parts)


class _View(Progress):
    """A bar with lines of text under it."""

    lines: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn."""
        yield from super().get_renderables()
        for line in self.lines:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


def _is_line_due(step: int, steps: int) -> bool:
    return step == steps or step % -(-steps // LINES_PER_RUN) == 0


class Bars:
    """Shows runs that go on side by side, a bar each; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = console.is_terminal and not quiet
        self._progress = Progress(*_bar_columns(), console=console, disable=not self._live)
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, int] = {}
        self._said: dict[str, int] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, name: str, steps: int) -> None:
        """Begin to show a run of `steps` steps."""
        self._tasks[name] = self._progress.add_task(escape(name), total=steps, facts="starting")
        self._steps[name], self._said[name] = steps, 0

    def update(
        self, name: str, step: int, loss: float, tokens_per_s: float, bpb: float | None
    ) -> None:
        """Show that a run has done `step` steps."""
        if not step:
            return
        steps, facts = self._steps[name], _facts(loss, tokens_per_s, bpb)
        self._progress.update(self._tasks[name], completed=step, facts=facts)
        due = step * LINES_PER_RUN // steps
        if due > self._said[name]:
            self._said[name] = due
            if not self._live and not self._quiet:
                console.print(escape(f"{name}: step {step}/{steps} {facts}"), soft_wrap=True)


class Reporter:
    """Shows runs one after the other; use it as a context manager.

    `quiet` shows nothing at all; `runs` is the number of runs to come.
    """

    def __init__(self, *, quiet: bool = False, runs: int = 1) -> None:
        self._quiet = quiet
        self._live = console.is_terminal and not quiet
        self._runs = runs
        self._run = 0
        self._name = ""
        self._steps = 0
        self._bpb: float | None = None
        self._losses: list[float] = []
        self._sources: dict[str, float] = {}
        self._bar = _View(*_bar_columns(), console=console, disable=not self._live)
        self._task = self._bar.add_task("", total=None, facts="", visible=False)

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, name: str, steps: int, first: int = 0) -> None:
        """Begin to show a run of `steps` steps, of which `first` are done already."""
        self._run += 1
        self._name, self._steps, self._bpb = name, steps, None
        self._losses, self._sources, self._bar.lines = [], {}, ()
        self._bar.reset(
            self._task,
            total=steps,
            completed=first,
            description=f"{escape(name)} ({self._run}/{self._runs})",
            visible=True,
            facts="",
        )
        if first:
            self.note(f"{name}: goes on from step {first} of {steps}")

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        """Show that `step` steps are done; `loss` in nats per token."""
        facts = _facts(loss, tokens_per_s, self._bpb)
        if self._live:
            self._bar.update(self._task, completed=step, facts=facts)
        elif _is_line_due(step, self._steps):
            self.note(f"{self._name}: step {step}/{self._steps} {facts}")

    def measured(self, row: Metrics) -> None:
        """Show, in a terminal, everything that the next step's line in `metrics.jsonl` holds."""
        if not self._live or not math.isfinite(row.loss):
            return
        self._losses = [*self._losses, row.loss][-SPARK_STEPS:]
        self._sources = row.valid_by_source or self._sources
        sources = [f"{name} {bpb:.3f}" for name, bpb in self._sources.items()]
        by_source = (f"bpb by source: {' · '.join(sources)}",) if sources else ()
        self._bar.lines = (measures(row, self._losses), *by_source)

    def evaluated(self, bpb: float) -> None:
        """Show the latest validation bits per byte from now on."""
        self._bpb = bpb

    def skipped(self, name: str, bpb: float) -> None:
        """Say that a run was finished before."""
        self._run += 1
        self.note(f"{name}: done before, bpb {bpb:.4f}")

    def note(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            console.print(escape(text), soft_wrap=True)
