"""A trial of the toy: the geometric mean over its problems of what each solution's constants are worth.

The definition of a problem says by which factor each constant that is no longer 1.0 changes its latency; NaN makes its
outputs wrong. `box` draws the noise of a launch, since nothing is launched.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from benchmarks.contract import Assignment, Failure, Gate, Outcome, PointSink

SIGMA = 0.01


class Evaluator:
    def run(
        self, task: Assignment, box: Random, sink: PointSink, gate: Gate = lambda: None, cpu: int | None = None,
        *, trained: Gate = lambda: None, beside: bool = False,
    ) -> Outcome:  # fmt: skip
        if not task.problems:
            return Outcome(failure=Failure("no_data", "no problem is named"))
        files, logs = _files(task.tree), []
        for name in task.problems:
            factor = _factor(task.data, name, files[f"{name}/solution.py"].decode())
            if math.isnan(factor):
                return Outcome(failure=Failure("bad_output", f"{name} is wrong"))
            logs.append(math.log(factor) + box.gauss(0, SIGMA / math.sqrt(2)))
        seconds = task.preset.budget_seconds + 0.5 * len(task.problems)
        metrics = {f"latency {name}": math.exp(log) for name, log in zip(task.problems, logs, strict=True)}
        return Outcome(score=math.exp(fmean(logs)), metrics=metrics, seconds={"total_wall": seconds, "train_wall": 1.0})

    def prepare(self, task: Assignment, box: Any) -> bool:
        return True

    def is_prepared(self, task: Assignment, box: Any) -> bool:
        return True

    def device_memory(self, task: Assignment, box: Any) -> int:
        return 0

    def close(self) -> None: ...


def _files(tree: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tree)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def _factor(data: Path, problem: str, source: str) -> float:
    worth = json.loads((data / "problems" / problem / "definition.json").read_text())["worth"]
    changed = [name for name, value in re.findall(r"^([A-Z]+) = ([\d.]+)", source, re.MULTILINE) if float(value) != 1]
    return math.prod(worth.get(name, 1.0) for name in changed)
