"""`python -m trainer` with a fault at one step of one rank, named by FAULT=what:rank:step.

`kill` is SIGKILL, `stop` a SIGTERM to this rank alone, `hang` an endless wait, `flip` one flipped
bit of a weight, `fail` an error that only this rank meets, `once` a SIGKILL unless torchrun has
restarted the ranks.
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
from trainer.cli import train_command
from trainer.run import Run

honest = Run.train_step


def train_step(self):
    what, rank, at = os.environ.get("FAULT", "none:0:0").split(":")
    if (self.ranks.rank, self.step + 1) == (int(rank), int(at)):
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


def main(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """Be one rank in a process of its own, whose messages go to the file `said`."""
    os.environ.update(environment)
    with Path(said).open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    with Path(os.devnull).open("wb") as file:
        os.dup2(file.fileno(), 1)
    sys.argv[1:] = arguments
    Run.train_step = train_step
    run(click.Group("trainer", [train_command]), "python -m trainer")


if __name__ == "__main__":
    Run.train_step = train_step
    run(click.Group("trainer", [train_command]), "python -m trainer")
