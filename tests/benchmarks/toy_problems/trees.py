"""The problems of prepared data, and the tree that a project on them begins from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BOUND = 0.36  # of every problem, as a share of its reference's latency; nobody knows that of rms_norm
SOLUTION = '''"""{name} as it is defined."""

TILE = 1.0
FUSE = 1.0


def run(value: float) -> float:
    return value
'''


def problems(data: Path) -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in data.glob("problems/*/definition.json")))


def start_files(start: str, data: Path) -> dict[str, bytes]:
    return {f"{name}/solution.py": SOLUTION.format(name=name).encode() for name in problems(data)}


def room(metrics: Mapping[str, float]) -> dict[str, float]:
    latencies = {name.partition(" ")[2]: value for name, value in metrics.items() if name.startswith("latency ")}
    return {name: max(0.0, 1 - BOUND / value) for name, value in latencies.items() if name != "rms_norm"}
