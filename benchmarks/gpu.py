"""Everything that Assay claims of a GPU, in one call of at most ten minutes and one JSON object.

    python -m benchmarks.gpu [--nanogpt PATH] [--only NAME,…] [--limit SECONDS] [--cpu [--compile]]

Each check is a process of its own with a time of its own (`benchmarks.gpu_checks`): a kernel that
faults, memory that is full and a collective that hangs end one check, whose error goes into the
JSON, and not those after it. The object is `{"card", "torch", "ok", "checks": {name: found}}`; in
what was found `ok` says whether the claim holds, `seconds` how long it took, and where it failed
`error` why. It is printed last on stdout; what happens meanwhile goes to stderr. Ends with 0 if all
is ok. Checks that did not get their turn within `--limit` say so and are not ok.

With `--cpu` the same code runs here at a tiny size, as a rehearsal: its figures mean nothing, and
what only a GPU can do (FlexAttention's gradients, streams, NCCL) is done in the CPU's way.
`--compile` has the rehearsal compile, too, which takes a minute or two.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIMITS = {
    "card": 60,
    "speed": 180,
    "nanogpt": 240,
    "resume": 90,
    "resume_compiled": 150,
    "masks": 120,
    "resume_masks": 150,
    "loader": 60,
    "ranks": 100,
    "precision": 90,
    "validation": 60,
    "muon": 120,
    "any_order": 120,
}
"""Check → seconds that it may take; the most important ones first."""

Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", metavar="PATH", help="a clone of nanoGPT, to compare with")
    parser.add_argument("--only", metavar="NAME,…", help="these checks; of " + ", ".join(LIMITS))
    parser.add_argument("--limit", metavar="SECONDS", type=float, default=570.0)
    parser.add_argument("--cpu", action="store_true", help="a rehearsal without a GPU")
    parser.add_argument("--compile", action="store_true", help="compile in a rehearsal, too")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(LIMITS)
    if options.nanogpt is None and not options.only:
        names.remove("nanogpt")
    unknown = sorted(set(names) - set(LIMITS))
    if unknown:
        parser.error(f"--only {','.join(unknown)}: the checks are {', '.join(LIMITS)}")
    place = {"device": "cpu" if options.cpu else "cuda", "nanogpt": options.nanogpt}
    place["compile"] = options.compile or not options.cpu
    end = time.monotonic() + options.limit
    checks: dict[str, Found] = {}
    for name in names:
        checks[name] = run_check(name, place, min(LIMITS[name], end - time.monotonic()))
        print(f"{name}: {json.dumps(checks[name])}", file=sys.stderr, flush=True)
    card = checks.get("card", {})
    ok = all(found["ok"] for found in checks.values())
    summary = {"card": card.get("name"), "torch": card.get("torch"), "ok": ok, "checks": checks}
    print(json.dumps(summary))
    sys.exit(not ok)


def run_check(name: str, place: Found, limit: float) -> Found:
    """Run a check in a process of its own; return what it found, or why it found nothing."""
    if limit <= 0:
        return {"ok": False, "error": "did not get its turn within --limit"}
    command = [sys.executable, "-m", "benchmarks.gpu_checks", name, json.dumps(place)]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = error.stderr or b""
        return {
            "ok": False,
            "seconds": round(time.monotonic() - begun, 1),
            "error": f"not done within {limit:.0f} s",
            "stderr": said.decode(errors="replace")[-2000:],
        }
    seconds = round(time.monotonic() - begun, 1)
    try:
        found: Found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):  # it was killed, by a signal or the driver
        error = f"ended with {done.returncode} and said nothing"
        return {"ok": False, "seconds": seconds, "error": error, "stderr": done.stderr[-2000:]}
    return {"seconds": seconds} | found


if __name__ == "__main__":
    main()
