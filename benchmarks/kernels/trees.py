"""The tree of a kernels project: one folder a problem, and in it `solution.py` with `run`.

The start `reference` is what the definitions hold: each problem's reference, word for word. Definition and workloads
lie beside it, to be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.kernels.cells import cells
from benchmarks.kernels.formats.definition import parse_definition
from benchmarks.kernels.formats.fields import parse_json
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.formats.workload import Problem, parse_workloads
from benchmarks.kernels.sample import in_turn
from benchmarks.kernels.score import geometric_mean

PROBLEMS, SOLUTION, DEFINITION = "problems", "solution.py", "definition.json"
READ_ONLY = (DEFINITION, "workload.jsonl")


def problems(data: Path) -> tuple[str, ...]:
    """The names of the prepared problems, in order."""
    return tuple(sorted(path.parent.name for path in (data / PROBLEMS).glob("*/definition.json")))


def room(metrics: Mapping[str, float]) -> dict[str, float]:
    """Problem -> the share of its latency above the bound, geometric mean over the workloads with one."""
    found = {}
    for name, times in cells(metrics).items():
        shares = [min(1.0, each.bound_ms / each.latency_ms) for each in times.values() if each.bound_ms]
        if (reached := geometric_mean(shares)) is not None:
            found[name] = 1 - reached
    return found


def withheld(data: Path, names: Sequence[str]) -> list[str]:
    """Those of these problems that are not ours, so that their licence may forbid to pass their files on.

    The manifest names our own; all are withheld where there is none.
    """
    manifest = data / "manifest.json"
    own = json.loads(manifest.read_text()).get("own", ()) if manifest.is_file() else ()
    return [name for name in names if name not in own]


def start_files(start: str, data: Path) -> dict[str, bytes]:
    """`start` is `reference`, the only one."""
    found = {}
    for name in problems(data):
        folder = data / PROBLEMS / name
        found[f"{name}/{SOLUTION}"] = f"{load_problem(folder).definition.reference.strip()}\n".encode()
        found |= {f"{name}/{file}": (folder / file).read_bytes() for file in READ_ONLY}
    return found


def problem_in(files: Mapping[str, bytes], name: str) -> Problem:
    """A problem of a tree, whose definition and workloads are what the start brought. Raises FormatError."""
    paths = [f"{name}/{file}" for file in READ_ONLY]
    definition, workloads = (files.get(path, b"").decode(errors="replace") for path in paths)
    known = parse_definition(parse_json(definition, paths[0]), paths[0])
    return Problem(known, parse_workloads(workloads, known, paths[1]))


def spread(files: Mapping[str, bytes], names: Sequence[str]) -> list[str]:
    """These problems of a tree, in an order whose every beginning spreads over families and sizes."""
    return in_turn([problem_in(files, name) for name in names])
