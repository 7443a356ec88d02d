"""The `assay` command: a table of subcommands, each imported only when it is used.

`assay --help` and `assay inspect` must not pay for Beam (0.5 s) or torch (1.1 s), so the table
holds a one-line help text beside the place where the command is defined.
"""

import importlib
from typing import NoReturn

import click

from shards import console
from shards.config import did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("pipelines.commands.demo:demo_command", "Run the whole chain on a corpus built here."),
    "run": (
        "pipelines.commands.run:run_command",
        "Run the chain of a recipe, skipping what is done.",
    ),
    "corpus": (
        "pipelines.demo.cli:corpus_command",
        "Build the demo corpus from this installation.",
    ),
    "curate": (
        "pipelines.commands.curate:curate_command",
        "Read, measure, filter and deduplicate.",
    ),
    "reference": (
        "pipelines.commands.reference:reference_command",
        "Train what documents are measured against.",
    ),
    "tokenizer": ("tokenizer.cli:tokenizer_command", "Train, inspect or compare tokenizers."),
    "tokenize": (
        "pipelines.commands.tokenize:tokenize_command",
        "Turn documents into token shards.",
    ),
    "train": ("trainer.cli:train_command", "Train one model on a selection of a tokens dataset."),
    "score": ("pipelines.commands.score:score_command", "Add a model's bits per byte as a column."),
    "study": (
        "pipelines.commands.study:study_command",
        "Train the arms of a study and compare them.",
    ),
    "plan": ("trainer.plan_cli:plan_command", "Plan a training run on a cluster of GPUs."),
    "export": (
        "trainer.export_cli:export_command",
        "Write a finished run's model as safetensors.",
    ),
    "report": ("pipelines.commands.report:report_command", "Write the HTML report of a chain."),
    "inspect": ("shards.cli:inspect_command", "Show what a dataset holds."),
    "verify": ("shards.cli:verify_command", "Check a dataset's files against their hashes."),
    "pack": ("shards.cli:pack_command", "Compress a dataset for transport."),
    "unpack": ("shards.cli:unpack_command", "Make a dataset out of its transport form."),
    "explain": (
        "pipelines.commands.explain:explain_command",
        "Say why a document was kept or dropped.",
    ),
    "reproduce": (
        "pipelines.commands.reproduce:reproduce_command",
        "Make a dataset again and compare the ids.",
    ),
    "gc": ("pipelines.commands.gc:gc_command", "Remove what killed jobs left."),
    "trace": (
        "pipelines.commands.trace:trace_command",
        "Say which documents a training step read.",
    ),
    "doctor": ("pipelines.commands.doctor:doctor_command", "Check this machine and installation."),
}
"""Name → ("module:attribute", help in one line), in the order of the chain."""


def load_command(name: str) -> click.Command:
    """Import and return one subcommand."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


class LazyGroup(click.Group):
    """A click group that imports a subcommand when it is called, not when help is printed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand; an unknown one is a usage error that names the nearest."""
        if cmd_name not in COMMANDS:
            ctx.fail(
                f"No such command {cmd_name!r}{did_you_mean(cmd_name, tuple(COMMANDS), 'commands')}"
            )
        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="assay-corpus", prog_name="assay")
def assay() -> None:
    """Turn raw text into training data that can be trusted, and prove what it is worth."""
    from pipelines.environment import check_import_names

    check_import_names()


def main() -> NoReturn:
    """Entry point of the console script."""
    console.run(assay, "assay")
