"""`list`, also spelled `--list`: which problems are there, and which can run on this CPU and on an H200."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernels import listing
from benchmarks.kernels.formats.workload import Problem

HELP = "the problems, and which of them can run where, or why not"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--problems", type=Path, help="a folder or parquet file of problems instead of our own")
    parser.add_argument("--json", action="store_true", help="one line a problem, then the names of all on one line")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    rows = listing.rows(problems)
    print(listing.as_json(rows) if options.json else listing.table(rows))
    return 0
