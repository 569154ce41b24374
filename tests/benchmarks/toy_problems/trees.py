"""The problems of prepared data, and the tree that a project on them begins from."""

from __future__ import annotations

from pathlib import Path

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
