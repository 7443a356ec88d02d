"""`python -m trainer train|study`: the package's commands on their own."""

import click

from shards.console import run
from trainer.cli import study_command, train_command

if __name__ == "__main__":
    run(click.Group("trainer", [train_command, study_command]), "python -m trainer")
