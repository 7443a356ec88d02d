"""`python -m tokenizer` is `assay tokenizer`."""

from shards.console import run
from tokenizer.cli import tokenizer_command

if __name__ == "__main__":
    run(tokenizer_command, "python -m tokenizer")
