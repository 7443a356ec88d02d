"""`python -m trainer` with a fault at one step of one rank, named by FAULT=what:rank:step.

`kill` is SIGKILL, `stop` a SIGTERM to this rank alone (`stop-begin` before the first step,
`stop-end` in the last validation, `stop-finish` after it), `hang` an endless wait, `flip` one
flipped bit of a weight, `fail` an error that only this rank meets, `once` a SIGKILL unless torchrun
has restarted the ranks, `spike` a loss of 50, which is that of all ranks.
"""

import os
import signal
import sys
import time
from pathlib import Path

import click
import torch

from shards.console import run
from shards.errors import CorruptError
from trainer import loop
from trainer import run as run_module
from trainer.cli import train_command
from trainer.run import Run

honest = Run.train_step
honest_gradient = Run._gradient


def fault() -> tuple[str, int, int]:
    what, rank, at = os.environ.get("FAULT", "none:0:0").split(":")
    return what, int(rank), int(at)


def stop_at(place, name, what, least=0):
    """Have a function of the trainer get a SIGTERM as it begins, with `least` arguments."""
    honest = getattr(place, name)

    def stopped(*arguments, **options):
        if len(arguments) >= least and fault()[:2] == (what, int(os.environ.get("RANK", "0"))):
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(*arguments, **options)

    setattr(place, name, stopped)


def add_faults():
    Run.train_step, Run._gradient = train_step, gradient
    stop_at(run_module, "build_optimizers", "stop-begin")
    stop_at(Run, "evaluate", "stop-end", least=3)  # the last one alone is given `heed`
    stop_at(loop, "fit_and_score", "stop-finish")


def train_step(self):
    what, rank, at = fault()
    if (self.ranks.rank, self.step + 1) == (rank, at):
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if what == "kill" or (what == "once" and not restarted):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if what == "hang":
            time.sleep(1000)
        if what == "fail":
            raise CorruptError("tokens/00000.arrow: block 7 was changed")
        if what == "flip":
            weights = self.model.blocks[0].mlp.up.data.view(torch.int32).view(-1)
            weights[5] ^= 1
    return honest(self)


def gradient(self, inputs, targets):
    what, _, at = fault()
    loss, norm = honest_gradient(self, inputs, targets)
    return 50.0 if (what, at) == ("spike", self.step + 1) else loss, norm


def main(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """Be one rank in a process of its own, whose messages go to the file `said`."""
    os.environ.update(environment)
    with Path(said).open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    with Path(os.devnull).open("wb") as file:
        os.dup2(file.fileno(), 1)
    sys.argv[1:] = arguments
    add_faults()
    run(click.Group("trainer", [train_command]), "python -m trainer")


if __name__ == "__main__":
    add_faults()
    run(click.Group("trainer", [train_command]), "python -m trainer")
