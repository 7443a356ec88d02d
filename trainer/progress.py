"""What a person sees while models train: a bar in a terminal, plain lines elsewhere, or nothing."""

from types import TracebackType

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from shards.console import console

LINES_PER_RUN = 5
"""Lines that a run leaves in a log file that is not a terminal."""


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
        self._valid = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
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
        self._name, self._steps, self._valid = name, steps, ""
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
        facts = f"loss {loss:.3f} {self._valid}{tokens_per_s:,.0f} tok/s"
        if self._live:
            self._bar.update(self._task, completed=step, facts=facts)
        elif step == self._steps or step % -(-self._steps // LINES_PER_RUN) == 0:
            self.note(f"{self._name}: step {step}/{self._steps} {facts}")

    def evaluated(self, bpb: float) -> None:
        """Show the latest validation bits per byte from now on."""
        self._valid = f"bpb {bpb:.3f} "

    def skipped(self, name: str, bpb: float) -> None:
        """Say that a run was finished before."""
        self._run += 1
        self.note(f"{name}: done before, bpb {bpb:.4f}")

    def note(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            console.print(escape(text), soft_wrap=True)
