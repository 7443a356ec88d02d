"""Run a command and watch what it and its children use (Linux: /proc)."""

import os
import resource
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.1


class Usage(NamedTuple):
    """Wall and CPU seconds of a command with its children, and its largest sum of RSS in MB."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def run_and_watch(command: list[str]) -> Usage:
    """Run a command to its end.

    Raises:
        CalledProcessError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(rss_mb, family(process.pid))))
        time.sleep(POLL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(time.monotonic() - start, cpu, peak)


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found, waiting = [], [pid]
    while waiting:
        found.append(parent := waiting.pop())
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        waiting += map(int, children)
    return found


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB, 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
