"""What a result rests on: hashes of judge, data, environment and tree, and the machine it ran on."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version

from benchmarks.contract import Assignment, load
from benchmarks.data import DataError
from runners import device
from runners.sandbox import Sandbox


def hashes(task: Assignment) -> dict[str, str]:
    """What is known before the trial; weights and compile cache are added when they are there."""
    manifest = json.loads((task.data / "manifest.json").read_text())
    if f"{task.split}.bin" not in manifest["files"]:
        raise DataError(f"the data have no {task.split!r}; there are {', '.join(manifest['files'])}")
    parts = [
        platform.python_version(),
        *(f"{name} {version(name)}" for name in ("torch", "numpy", "safetensors")),
    ]
    return {
        "judge": load(task.benchmark).evaluator_hash(),
        "data": manifest["data_id"],
        "split": manifest["files"][f"{task.split}.bin"]["sha256"],
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
