"""The kernels benchmark without the lab: `python -m benchmarks.kernels --list`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.kernels import listing
from benchmarks.kernels.formats.fields import FormatError
from benchmarks.kernels.formats.loader import OWN, load_problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--list", action="store_true", required=True, help="what there is, and what can run where")
    parser.add_argument("--problems", type=Path, default=OWN, help="a folder or parquet file; without: our own set")
    parser.add_argument("--json", action="store_true", help="one line a problem, then the names of all on one line")
    options = parser.parse_args()
    try:
        found = listing.rows(load_problems(options.problems))
    except FormatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(listing.as_json(found) if options.json else listing.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
