"""What malloc was told is for a whole process, so each question is asked in one of its own."""

import json
import mmap
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"

QUESTION = r"""
import json, re
import numpy as np
from pathlib import Path
from trainer.memory import prepare_memory

told, again = prepare_memory(), prepare_memory()
first = np.ones(2**24).ctypes.data  # freed at once
block = np.ones(2**24)
middle = block.ctypes.data + block.nbytes // 2
inside = False
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, *rest = line.split()
    if "-" in name and ":" not in name:
        start, end = (int(part, 16) for part in name.split("-"))
        inside = start <= middle < end
    elif inside and name == "VmFlags:":
        flags = rest
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([told, again, first == block.ctypes.data, flags, int(peak[1])]))
"""


@pytest.mark.skipif(not GLIBC or not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux with glibc")
def test_large_blocks_are_kept_and_may_have_large_pages_and_cost_nothing_before():
    asked = subprocess.run([sys.executable, "-c", QUESTION], capture_output=True, check=True)
    told, again, same_place, flags, kib = json.loads(asked.stdout)
    assert told
    assert again
    assert same_place
    assert "hg" in flags
    assert kib < 600_000  # of the GiB of addresses only what was used


def test_elsewhere_nothing_is_done(monkeypatch):
    from trainer import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.prepare_memory.__wrapped__() is False
