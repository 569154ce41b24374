"""What every result rests on, whatever the benchmark: the environment, the tree, the machine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.contract import Assignment, load
from runners import device
from runners.sandbox import Sandbox


def manifest(task: Assignment) -> dict[str, Any]:
    """Of the prepared data."""
    found: dict[str, Any] = json.loads((task.data / "manifest.json").read_text())
    return found


def hashes(task: Assignment, packages: Sequence[str]) -> dict[str, str]:
    """What is known before the trial: judge, data, environment (Python and these packages) and tree."""
    parts = [platform.python_version(), *(f"{name} {version(name)}" for name in packages)]
    return {
        "judge": load(task.benchmark).evaluator_hash(),
        "data": manifest(task)["data_id"],
        "environment": hashlib.sha256(" ".join(parts).encode()).hexdigest(),
        "tree": hashlib.sha256(task.tree).hexdigest(),
    }


def surroundings(task: Assignment, box: Sandbox) -> dict[str, str]:
    """Device, its clocks, torch, what fences the candidate off, the clock that counts, and the seed."""
    return {
        "processor": device.processor(),
        **device.clocks(),
        "sandbox": box.mechanism,
        "clock": task.preset.clock,
        "torch": version("torch"),
        "seed": str(task.seed),
    }
