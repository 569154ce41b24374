"""The problems of prepared data, each a folder of the tree that begins as its reference."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernels.formats.loader import load_problem


def problems(data: Path) -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in (data / "problems").iterdir()))


def start_files(start: str, data: Path) -> dict[str, bytes]:
    return {
        f"{name}/solution.py": load_problem(data / "problems" / name).definition.reference.encode()
        for name in problems(data)
    }
