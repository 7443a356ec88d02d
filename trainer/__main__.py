"""`python -m trainer train|study|export`: the package's commands on their own."""

import click

from shards.console import run
from trainer.cli import study_command, train_command
from trainer.export_cli import export_command

if __name__ == "__main__":
    commands = [train_command, study_command, export_command]
    run(click.Group("trainer", commands), "python -m trainer")
