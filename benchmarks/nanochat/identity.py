"""What a result rests on beyond what every benchmark's does: the split that scores it."""

from __future__ import annotations

from benchmarks import identity
from benchmarks.contract import Assignment
from benchmarks.data import DataError

PACKAGES = ("torch", "numpy", "safetensors")


def hashes(task: Assignment) -> dict[str, str]:
    """What is known before the trial; weights and compile cache are added when they are there."""
    files = identity.manifest(task)["files"]
    if f"{task.split}.bin" not in files:
        raise DataError(f"the data have no {task.split!r}; there are {', '.join(files)}")
    return identity.hashes(task, PACKAGES) | {"split": files[f"{task.split}.bin"]["sha256"]}
