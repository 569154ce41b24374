"""`evaluate`: one solution of one problem, right or wrong, and how fast on each workload."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernels.anchors import Anchor
from benchmarks.kernels.commands import suite as tree_command
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.score import score as sol_score
from benchmarks.kernels.suite import Line, Suite
from benchmarks.kernels.trees import SOLUTION

HELP = "check and time one solution of one problem"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(problems=None)
    parser.add_argument("problem", help="the name of a prepared problem")
    parser.add_argument("--solution", type=Path, help="a file with run(*inputs); without one, the reference")
    tree_command.common(parser)


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Exit code 1 where it is wrong. Raises FormatError, ContractError, DataError."""
    files = {}
    if options.solution:
        if not options.solution.is_file():
            wrong(str(options.solution), "is not there", "give a file with run(*inputs)")
        files[f"{options.problem}/{SOLUTION}"] = options.solution.read_bytes()
    made = Suite(options.preset, files, options.seed)
    line, outcome = next(iter(list(made.measure(made.problems([options.problem])))))
    if options.json:
        print(json.dumps(line.to_json()))
    else:
        print(table(line))
        if line.failure:
            print(outcome.log[-2000:], file=sys.stderr)
    return int(line.score is None)


def table(line: Line) -> str:
    """Times in microseconds."""
    rows = [f"{'workload':40} {'us':>10} {'reference':>10} {'faster':>8} {'bound':>10} {'SOL':>6}"]
    for uuid, times in line.times.items():
        bound, sol = "-", "-"
        if times.bound_ms is not None:
            bound = f"{1e3 * times.bound_ms:.2f}"
            sol = f"{sol_score(times.latency_ms, Anchor(times.bound_ms, times.reference_ms)):.3f}"
        rows.append(
            f"{uuid[:40]:40} {1e3 * times.latency_ms:10.1f} {1e3 * times.reference_ms:10.1f} "
            f"{times.reference_ms / times.latency_ms:7.2f}x {bound:>10} {sol:>6}"
        )
    if line.score is not None:
        rows.append(f"{line.problem}: {line.score:.3f} x the reference's latency")
    return "\n".join((*rows, *line.findings, *([line.failure] if line.failure else [])))
