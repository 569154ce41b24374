"""`suite`: measure a tree of solutions, or the references, problem by problem; `evaluate`: one solution."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernels import suite
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.suite import Line, Suite
from benchmarks.kernels.trees import SOLUTION

HELP = "measure a tree of solutions problem by problem; goes on where it was cut off"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(problems=None)
    parser.add_argument("--tree", type=Path, help=f"a folder of NAME/{SOLUTION}; what it lacks is the reference")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these problems alone")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th problem, beginning with the I-th")
    parser.add_argument("--out", type=Path, help="a file that gets a line a problem; what it holds is not done again")
    common(parser)


def common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seed", type=int, help="of the inputs; without one they are other ones each time")
    parser.add_argument("--json", action="store_true", help="one line a problem, and a last one over all")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Exit code 1 where a solution failed. Raises FormatError, ContractError, DataError."""
    made = Suite(options.preset, read_tree(options.tree) if options.tree else {}, options.seed)
    names = made.problems(options.only, _shard(options.shard))
    known = suite.read_lines(options.out, made.key) if options.out else {}
    lines = [known[name] for name in names if name in known]
    for line in lines:
        show(line, options.json)
    left = [name for name in names if name not in known]
    for line, _ in made.measure(left, lambda name: print(f"{name} ...", file=sys.stderr, flush=True)):
        if options.out:
            suite.append(options.out, line)
        lines.append(line)
        show(line, options.json)
    row = suite.summary(lines)
    print(json.dumps(row) if options.json else _words(row))
    return int(row["passed"] < row["problems"])


def show(line: Line, as_json: bool) -> None:
    if as_json:
        print(json.dumps(line.to_json()), flush=True)
        return
    value = "failed" if line.score is None else f"{line.score:.3f} x"
    sol = "" if line.sol is None else f"  SOL {line.sol:.3f}"
    sol += "" if line.scaled is None else f"  scaled {line.scaled:.3f}"
    print(f"{line.problem:36} {value:>10}{sol}  {line.failure or '; '.join(line.findings)}".rstrip(), flush=True)


def _words(row: dict[str, object]) -> str:
    latency = row["relative_latency"]
    mean = "" if latency is None else f"; geometric mean {latency:.3f} x the reference's latency"
    return f"{row['passed']} of {row['problems']} problems passed{mean}"


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        wrong("--shard", f"is {text!r}", "write I/N, with I from 1 to N")
    return int(number), int(of)


def read_tree(tree: Path) -> dict[str, bytes]:
    """path -> content of NAME/*.py. Raises FormatError where it holds no solution, or links."""
    found = {path.relative_to(tree).as_posix(): path for path in sorted(tree.glob("*/*.py"))}
    if not any(name.endswith(f"/{SOLUTION}") for name in found):
        wrong(str(tree), f"holds no NAME/{SOLUTION}", "give the folder of a candidate")
    if links := [name for name, path in found.items() if path.is_symlink()]:
        wrong(str(tree), f"holds the link {links[0]}", "copy the file")
    return {name: path.read_bytes() for name, path in found.items()}
