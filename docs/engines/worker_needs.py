"""Print what a Beam worker needs of Assay's requirements, one a line: torch only where asked for.

python worker_needs.py --torch 0 web lang
"""

import argparse
from importlib import metadata

from packaging.requirements import Requirement


def main() -> None:
    """Read the requirements of the installed wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="0", help="1 to keep torch")
    parser.add_argument("extras", nargs="*", help="optional parts, e.g. web lang")
    asked = parser.parse_args()
    for line in metadata.requires("assay-corpus") or []:
        need = Requirement(line)
        wanted = need.marker is None or any(
            need.marker.evaluate({"extra": extra}) for extra in ["", *asked.extras]
        )
        if wanted and (need.name != "torch" or asked.torch == "1"):
            print(f"{need.name}{need.specifier}")


if __name__ == "__main__":
    main()
