"""The process of a sweep, `python -m benchmarks.kernels.meter DEVICE`: tasks on stdin, answers on stdout, lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.judge_device import Shared, about
from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.formats.workload import Problem, Workload
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.inside.calls import Pads, queued, wake
from benchmarks.kernels.judge import PAD_BYTES
from benchmarks.kernels.measured import PASSED
from benchmarks.kernels.reference import Reference, ReferenceFailed, Value
from benchmarks.kernels.stopwatch import PASSES, SWEEPS, passes_for
from benchmarks.kernels.sweep import EAGER, Task
from runners import cuda

ROUNDS, MOST_SETS, ROUND_SECONDS = 3, 32, 0.01
MOST_BYTES = 2 << 30  # of the inputs and outputs of a round; torch may keep as much between two workloads
Run = Callable[[Mapping[str, Value]], dict[str, torch.Tensor]]


class Meter:
    """Holds one problem at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        driver = cuda.Device() if device.type == "cuda" else None
        self.synchronize: Callable[[], None] = driver.synchronize if driver else lambda: None
        size = 4 * torch.cuda.get_device_properties(device).L2_cache_size if driver else PAD_BYTES
        self.memory = Shared(size, device)
        self.pads = Pads(self.memory.bytes)
        a_pass = min(self._seconds(lambda _: {}, [], 16)[0] / 16 for _ in range(3))
        self.passing = {count: count * a_pass for count in PASSES}
        self.folder = ""
        self.problem: Problem
        self.reference: Reference
        self.compiled: dict[str, Run] = {}

    def answer(self, task: Task) -> dict[str, Any]:
        """`status`, and `latency_ms` where that is PASSED, else `why`."""
        if self.folder != task.folder:
            torch._dynamo.reset()
            self.problem = load_problem(Path(task.folder))
            self.reference = Reference(self.problem.definition, self.device)
            self.folder, self.compiled = task.folder, {}
        workload = next(each for each in self.problem.workloads if each.uuid == task.uuid)
        try:
            return self._measured(self._run(task.variant), workload, task.variant != EAGER)
        except (ReferenceFailed, torch.OutOfMemoryError) as error:
            return {"status": "RUNTIME_ERROR", "why": str(error)[:300]}
        finally:
            if self.device.type == "cuda" and torch.cuda.memory_reserved(self.device) > MOST_BYTES:
                torch.cuda.empty_cache()

    def _measured(self, run: Run, workload: Workload, compared: bool) -> dict[str, Any]:
        first = self._drawn(workload, 0)
        found = run(first)
        if compared:
            comparison = compare(found, self.reference.run(first), workload.tolerance)
            if comparison.reason:
                return {"status": str(comparison.status), "why": comparison.reason}
        size = _bytes(first) + _bytes(found)
        del found
        once, _ = self._seconds(run, [first], PASSES[0])  # of this size the second call: all is compiled
        count = int(max(1, min(MOST_SETS, MOST_BYTES // max(size, 1), ROUND_SECONDS / max(once, 1e-9))))
        sets = [first, *(self._drawn(workload, seed) for seed in range(1, count))]
        _, launched = self._seconds(run, sets, PASSES[0])
        passes = passes_for(launched, self.passing)
        latency = median(self._latency(run, sets, passes) for _ in range(ROUNDS))
        if latency <= 0:
            return {"status": "TIMEOUT", "why": "it is lost in the noise of this machine"}
        return {"status": PASSED, "latency_ms": 1e3 * latency}

    def _latency(self, run: Run, sets: Sequence[Mapping[str, Value]], passes: int) -> float:
        """Seconds of a call."""
        pads, _ = self._seconds(lambda _: {}, [{}] * len(sets), passes)
        return (self._seconds(run, sets, passes)[0] - pads) / len(sets)

    def _seconds(self, run: Run, sets: Sequence[Mapping[str, Value]], passes: int) -> tuple[float, float]:
        """Of all calls with the pads before them, and what the host took to start the calls."""
        keys = self.pads.keys([1] * passes)
        wake(self.device)
        self.synchronize()
        began = time.perf_counter()
        done = queued(run, [(one,) for one in sets], self.pads, keys, SWEEPS, nothing, self.synchronize, -1, nothing)
        return time.perf_counter() - began, done.launched

    def _run(self, variant: str) -> Run:
        if variant == EAGER:
            return self.reference.run
        if variant not in self.compiled:
            compiled = torch.compile(self.reference.module.run, mode=variant.removeprefix("compile-"))
            reference = self.reference
            self.compiled[variant] = lambda inputs: reference.run(inputs, compiled)
        return self.compiled[variant]

    def _drawn(self, workload: Workload, seed: int) -> dict[str, Value]:
        problem = self.problem
        return make_inputs(
            problem.definition, workload, seed, self.device, blobs=problem.folder, reference=self.reference
        )  # fmt: skip


def nothing(*_: object) -> None:
    """Inputs are not sealed here, and no outputs looked at."""


def _bytes(values: Mapping[str, Value]) -> int:
    return sum(each.numel() * each.element_size() for each in values.values() if isinstance(each, torch.Tensor))


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what references print is no answer
    device = torch.device(sys.argv[1])
    meter = Meter(device)
    print(json.dumps({"name": about(device).get("gpu", "CPU")}), file=out, flush=True)
    for line in sys.stdin:
        answer = meter.answer(Task(**json.loads(line)))
        print(json.dumps(answer), file=out, flush=True)
        if "CUDA error" in answer.get("why", ""):
            os._exit(1)  # nothing works any more in this process


if __name__ == "__main__":
    main()
