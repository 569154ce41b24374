"""The tree of a kernels project: one folder a problem, and in it `solution.py` with `run`.

The start `reference` is what the definitions hold: each problem's reference, word for word.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernels.formats.loader import load_problem

PROBLEMS, SOLUTION = "problems", "solution.py"


def problems(data: Path) -> tuple[str, ...]:
    """The names of the prepared problems, in order."""
    return tuple(sorted(path.parent.name for path in (data / PROBLEMS).glob("*/definition.json")))


def start_files(start: str, data: Path) -> dict[str, bytes]:
    """`start` is `reference`, the only one."""
    found = {name: load_problem(data / PROBLEMS / name).definition.reference for name in problems(data)}
    return {f"{name}/{SOLUTION}": f"{text.strip()}\n".encode() for name, text in found.items()}
