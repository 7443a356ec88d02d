"""`python -m trainer train|study|export`: the package's commands on their own."""

import sys

from trainer.signals import leave_early

if __name__ == "__main__":
    if sys.argv[1:2] in (["train"], ["study"]):
        leave_early()  # what is imported here takes a third of a second

    import click

    from shards.console import run
    from trainer.cli import study_command, train_command
    from trainer.export_cli import export_command

    commands = [train_command, study_command, export_command]
    run(click.Group("trainer", commands), "python -m trainer")
