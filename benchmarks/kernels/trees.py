"""The tree of a kernels project: one folder a problem, and in it `solution.py` with `run`.

The start `reference` is what the definitions hold: each problem's reference, word for word. Definition and workloads
lie beside it, to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.kernels.cells import cells
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.score import geometric_mean

PROBLEMS, SOLUTION = "problems", "solution.py"
READ_ONLY = ("definition.json", "workload.jsonl")


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


def start_files(start: str, data: Path) -> dict[str, bytes]:
    """`start` is `reference`, the only one."""
    found = {}
    for name in problems(data):
        folder = data / PROBLEMS / name
        found[f"{name}/{SOLUTION}"] = f"{load_problem(folder).definition.reference.strip()}\n".encode()
        found |= {f"{name}/{file}": (folder / file).read_bytes() for file in READ_ONLY}
    return found
