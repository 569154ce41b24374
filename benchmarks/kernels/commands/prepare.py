"""`prepare`: lay problems where the lab's trials read them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contract import load
from benchmarks.kernels import listing, prepare
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.formats.workload import Problem

HELP = "lay the problems of a preset where the lab's trials read them"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--problems", type=Path, help="a folder of problems instead of our own")
    parser.add_argument("--preset", default="cpu", help="whose problems they become (default: cpu)")
    parser.add_argument("--json", action="store_true", help="say it on one line")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises FormatError for problems that cannot be copied or run, ContractError for an unknown preset."""
    preset = load("kernels").preset(options.preset)
    own = prepare.own_problems(preset.device)
    given = [(problem, "workload.jsonl") for problem in problems] if options.problems else own
    left_out = {problem.name: why for problem, _ in given if (why := cannot_run(problem, preset.device))}
    for name, why in left_out.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    given = [(problem, sizes) for problem, sizes in given if problem.name not in left_out]
    if not given:
        wrong(str(options.problems), f"holds no problem that a {preset.device} device can run", "prepare others")
    folder = prepare.prepare(given, preset.data, lambda words: print(words, file=sys.stderr))
    sizes = sum(len(problem.workloads) for problem, _ in given)
    if options.json:
        row = {"folder": str(folder), "problems": len(given), "workloads": sizes, "left_out": left_out}
        print(json.dumps(row))
    else:
        print(f"{len(given)} problems with {sizes} workloads are prepared in {folder}; {len(left_out)} left out")
    return 0


def cannot_run(problem: Problem, device: str) -> str:
    """Why no workload of a problem can run on a device ("cpu" or "cuda"); empty where one can."""
    memory, name = (listing.physical_memory(), "CPU") if device == "cpu" else (listing.H200_BYTES, "H200")
    found = listing.fit(problem, memory, name)
    return "" if found.workloads else found.reason
