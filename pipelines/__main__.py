"""`assay` and `python -m pipelines`: what must come before slow imports, and then `cli`."""

import sys
from typing import NoReturn

from trainer.signals import leave_early

NO_RUN = ("show", "compare", "suggest", "fit")
"""Commands of `assay study` that train nothing."""


def main() -> NoReturn:
    """Entry point of the console script."""
    if _is_run(sys.argv[1:]):
        leave_early()  # until the command handles signals itself, half a second later
    try:
        from pipelines.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


def _is_run(arguments: list[str]) -> bool:
    """Whether this is `train`, or a `study` on a dataset that is there and not a chain of stages.

    The others end with 143 after SIGTERM, and a chain sees its stages end.
    """
    name, *rest = arguments or [""]
    has_data = any(word.split("=")[0] == "--data" for word in rest)
    return name == "train" or (name == "study" and has_data and rest[0] not in NO_RUN)


if __name__ == "__main__":
    main()
