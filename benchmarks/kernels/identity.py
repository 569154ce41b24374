"""What a result of the kernel lane rests on: hashes of judge, problems, environment and tree, and the machine."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version

from benchmarks.contract import Assignment, load
from runners import device
from runners.sandbox import Sandbox

PACKAGES = ("torch", "numpy")


def hashes(task: Assignment) -> dict[str, str]:
    """What is known before the trial; the compile cache is added when it is there."""
    manifest = json.loads((task.data / "manifest.json").read_text())
    parts = [platform.python_version(), *(f"{name} {version(name)}" for name in PACKAGES)]
    return {
        "judge": load(task.benchmark).evaluator_hash(),
        "data": manifest["data_id"],
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
