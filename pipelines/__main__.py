"""`assay` and `python -m pipelines`: what must come before slow imports, and then `cli`."""

import sys
from typing import NoReturn

from trainer.signals import leave_early


def main() -> NoReturn:
    """Entry point of the console script."""
    if sys.argv[1:2] in (["train"], ["study"]):
        leave_early()  # until the command handles signals itself, half a second later
    from pipelines.cli import main as run

    run()


if __name__ == "__main__":
    main()
