"""`prepare`: lay problems where the lab's trials read them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contract import load
from benchmarks.kernels import prepare
from benchmarks.kernels.formats.workload import Problem

HELP = "lay the problems of a preset where the lab's trials read them"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--problems", type=Path, help="a folder of problems instead of our own")
    parser.add_argument("--preset", default="cpu", help="whose problems they become (default: cpu)")
    parser.add_argument("--json", action="store_true", help="say it on one line")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises FormatError for problems that cannot be copied, ContractError for an unknown preset."""
    preset = load("kernels").preset(options.preset)
    own = prepare.own_problems(preset.device)
    given = [(problem, "workload.jsonl") for problem in problems] if options.problems else own
    folder = prepare.prepare(given, preset.data, lambda words: print(words, file=sys.stderr))
    sizes = sum(len(problem.workloads) for problem, _ in given)
    if options.json:
        print(json.dumps({"folder": str(folder), "problems": len(given), "workloads": sizes}))
    else:
        print(f"{len(given)} problems with {sizes} workloads are prepared in {folder}")
    return 0
