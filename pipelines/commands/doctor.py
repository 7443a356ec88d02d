"""`assay doctor`: is this machine and installation fit to run Assay?"""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from shards.errors import AssayError, PlatformError

MIN_FREE_GB = 2.0


def check_python() -> str:
    """Check the interpreter's version."""
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def check_names() -> str:
    """Check that our import names are ours."""
    from pipelines.environment import NAMES, check_import_names

    check_import_names()
    return f"{', '.join(NAMES)} belong to Assay alone"


def check_packages() -> str:
    """Check that every required package is there, in a version that Assay accepts."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for line in metadata.requires("assay-corpus") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        raise PlatformError(f"{'; '.join(wrong)}: run make install")
    return f"{count} required packages present"


def check_runner() -> str:
    """Group 1,000 elements with the in-process runner, and count what comes out."""
    from pipelines import files
    from pipelines.beam import beam
    from pipelines.runners import RunnerOptions, run_pipeline

    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "sums.json")

        def build(pipeline: Any) -> None:
            _ = (
                pipeline
                | "numbers" >> beam.Create([(0, number) for number in range(1000)])
                | "group" >> beam.GroupByKey()
                | "write"
                >> beam.Map(
                    lambda group: files.write_atomic(out, json.dumps(sorted(group[1])).encode())
                )
            )

        run_pipeline(RunnerOptions(), build, label="doctor")
        arrived = json.loads(Path(out).read_bytes())
    if arrived != list(range(1000)):
        raise PlatformError(
            f"Beam's in-process runner lost elements: {len(arrived)} of 1000 arrived"
        )
    return f"Beam {metadata.version('apache-beam')} in process: 1000 of 1000 elements arrived"


def check_kernels() -> str:
    """Compile or load the kernels and compare a signature with datasketch's."""
    import datasketch
    import numpy as np

    from dedup.config import NearConfig
    from dedup.minhash import signatures
    from dedup.shingles import shingles

    text = b"the quick brown fox jumps over the lazy dog and runs away"
    data, offsets = np.frombuffer(text, dtype=np.uint8), np.array([0, len(text)])
    hashes, _ = shingles(data, offsets, 5, "word")
    sketch = datasketch.MinHash(num_perm=128, seed=1, hashfunc=int, scheme="affine32")
    for value in hashes >> np.uint64(32):
        sketch.update(value)
    if not np.array_equal(signatures(data, offsets, NearConfig())[0], sketch.hashvalues):
        raise PlatformError("MinHash signatures differ from datasketch's on this machine")
    return "compiled; MinHash signature equal to datasketch's"


def check_torch() -> str:
    """Say which device training will use. Imported in a child: Beam and torch share no process."""
    import subprocess

    code = (
        "import torch; c = torch.cuda.is_available();"
        "print(torch.__version__, torch.cuda.get_device_name() if c else"
        " f'CPU, {torch.get_num_threads()} threads')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlatformError(f"torch cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    return f"torch {done.stdout.strip()}"


def check_resources() -> str:
    """Report cores, memory and free disk; little disk is an error."""
    free = shutil.disk_usage(".").free / 1e9
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if free < MIN_FREE_GB:
        raise PlatformError(
            f"{free:.1f} GB of disk free here; the demo alone needs {MIN_FREE_GB:g}"
        )
    return f"{os.cpu_count()} cores, {memory:.0f} GB memory, {free:.0f} GB disk free"


CHECKS: dict[str, Callable[[], str]] = {
    "python": check_python,
    "names": check_names,
    "packages": check_packages,
    "machine": check_resources,
    "kernels": check_kernels,
    "beam": check_runner,
    "torch": check_torch,
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor_command(as_json: bool) -> None:
    """Check this machine and installation; exit 1 if something would give wrong results."""
    out = Console(highlight=False)
    results = {}
    for name, check in CHECKS.items():
        try:
            results[name] = {"ok": True, "found": check()}
        except (AssayError, ImportError) as error:
            results[name] = {"ok": False, "found": str(error)}
        if not as_json:
            mark = "[green]ok[/]  " if results[name]["ok"] else "[red]FAIL[/]"
            out.print(f"{mark} {name:<9} {escape(str(results[name]['found']))}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    if not all(result["ok"] for result in results.values()):
        raise SystemExit(1)
