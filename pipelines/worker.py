"""A Beam worker process on this machine: `python -m pipelines.worker`, started by `--workers N`.

Beam's own entry point prints some twenty log lines per worker and stage over the progress display,
and the traceback of every error, which also travels to the job through the control channel and is
reported there. Set ASSAY_DEBUG=1 to see all of it.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path


def main() -> None:
    """Run Beam's worker quietly; an error of the worker itself is still printed."""
    with contextlib.ExitStack() as stack:
        if not os.environ.get("ASSAY_DEBUG"):
            logging.disable(logging.ERROR)
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        from apache_beam.runners.worker import sdk_worker_main

        # ^C reaches the whole process group; the command is the one that says something about it.
        with contextlib.suppress(KeyboardInterrupt):
            sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
