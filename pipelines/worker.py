"""A Beam worker process on this machine: `python -m pipelines.worker`, started by `--workers N`.

Beam's own entry point prints some twenty log lines per worker and stage over the progress display,
and the traceback of every error, which also travels to the job through the control channel and is
reported there. Set ASSAY_DEBUG=1 to see all of it.
"""

import logging
import os
import shlex
import sys


def command() -> str:
    """Return the shell command of a worker.

    A signal to the whole process group (^C, `timeout`) is for the job to answer, so the worker
    ignores it from its first moment: one that died of it would look like one out of memory. It
    ends when the job closes the channel, or is gone.
    """
    return f'trap "" INT TERM; exec {shlex.quote(sys.executable)} -m pipelines.worker'


def main() -> None:
    """Run Beam's worker quietly; an error at its start is still printed."""
    quiet = not os.environ.get("ASSAY_DEBUG")
    if quiet:
        logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker_main

    if quiet:
        # The descriptor and not sys.stderr: threads of grpc write when all else has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
