"""`assay` and `python -m pipelines`: what must come before slow imports, and then `cli`."""

import sys
from typing import NoReturn

from pipelines.arguments import is_run
from trainer.signals import leave_early


def main() -> NoReturn:
    """Entry point of the console script."""
    if is_run(sys.argv[1:]):
        leave_early()  # until the command handles signals itself, half a second later
    try:
        from pipelines.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
