"""A judge without the guards named by its first argument. A program of its own, started by guards.py beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks import judge_device  # noqa: E402
from benchmarks.kernels import batch, judge  # noqa: E402
from benchmarks.kernels.compare import Comparison, compare  # noqa: E402
from benchmarks.kernels.formats.trace import Status  # noqa: E402
from benchmarks.kernels.redteam.exploits import SEED  # noqa: E402


def passed(*_: Any) -> Comparison:
    return Comparison(Status.PASSED, None)


def what_is_a_number(outputs: dict[str, torch.Tensor], references: dict[str, torch.Tensor], tolerance: Any) -> Any:
    """What is none is equal to anything, as it is to a comparison that asks whether an error is too large."""
    numbers = {name: torch.where(one.isfinite(), one, references[name]) for name, one in outputs.items()}
    return compare(numbers, references, tolerance)


class NoDigest(batch.Digest):
    def of(self, memory: Any) -> bytes:
        return b""


def main() -> None:
    removed = frozenset(sys.argv.pop(1).split(","))
    weakened: Any = judge
    memory: Any = judge_device
    if "compared" in removed:
        weakened.compare = passed
    if "finite_outputs" in removed:
        weakened.compare = what_is_a_number
    if "fresh_inputs" in removed:
        weakened._seeds = lambda request, workload: [SEED] * request["sets"]
    if "inputs_watched" in removed:
        weakened.Digest, batch.OWN_BYTES = NoDigest, -1  # references read what the candidate was given, after it has
    if "sealed_memory" in removed:
        memory.fcntl.fcntl = lambda *_: 0
    judge.main()


if __name__ == "__main__":
    main()
