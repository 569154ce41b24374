"""The guards of this lane by name, and what takes one away: for the red team's test that each of them is needed.

Nothing of the lab imports this file, and `evaluate.Evaluator` refuses an assignment that names a removed guard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import Assignment, Outcome, PointSink
from benchmarks.kernels import evaluate
from benchmarks.kernels.cpu_clock import CpuLaunch
from benchmarks.kernels.launch import Cell, Message, Timed
from runners import process_tree
from runners.sandbox import Child, Sandbox

GUARDS: Mapping[str, str] = {
    "compared": "every output is compared with the reference's, by value",
    "every_call": "the outputs of every call are compared, those of timed ones too",
    "every_size": "every listed size is measured",
    "other_sizes": "who is to be confirmed is asked for a size that is not listed",
    "finite_outputs": "an output that is no number fails",
    "fresh_inputs": "every call has inputs of its own, from a seed that nobody knows",
    "inputs_watched": "inputs that a call writes to fail it, and the reference has copies of its own",
    "all_work_counts": "work beside the calls is charged, found where it is most, and so is what cannot be so fast",
    "whole_sandbox": "the CPU seconds of every process of the sandbox count",
    "overhead_first": "what a message takes is measured before anything of the candidate is there",
    "clock_outside": "times are the worker's own; what a candidate measures or prints is text",
    "answers_numbered": "each answer names the message that it answers",
    "sealed_memory": "memory that judge and candidate share cannot change its size",
    "reference_apart": "references and what they answer are in a process of their own",
    "cache_snapshot": "of a compile cache stays what stood there when the clock started",
    "mounts": "the sandbox mounts no data",
}
JUDGE_GUARDS = frozenset(("compared", "finite_outputs", "fresh_inputs", "inputs_watched", "sealed_memory"))
CLAIM = re.compile(r"relative_latency: ([-+.\de]+)")
OPEN_JUDGE = str(Path(__file__).with_name("open_judge.py"))
WARM_UPS = 2  # batches of a workload


class OpenLaunch(CpuLaunch):
    """A launch without the guards that `removed` names."""

    removed: frozenset[str] = frozenset()
    _called = False  # in this batch

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        if "overhead_first" in self.removed and cell.batches:
            self.overhead = self.measure_overhead()
        self._called = False
        timed = super().time_batch(cell, sets, seconds)
        if "all_work_counts" in self.removed:
            return Timed(timed.called / sets, timed.reference, timed.called, 0.0)
        return timed

    def look_further(self) -> None:
        if "other_sizes" not in self.removed:
            super().look_further()

    def judge_on(self, cell: Cell, request: Message) -> bool:
        if "every_call" in self.removed and cell.batches >= WARM_UPS:
            return False
        return super().judge_on(cell, request)

    def ask(self, message: Message, *options: Any) -> dict[str, Any]:
        self._called = self._called or message["op"] == "call"
        return super().ask(message, *options)

    def ask_judge(self, request: Message) -> dict[str, Any]:
        if "inputs_watched" in self.removed and request["op"] == "refer" and not self._called:
            return {}  # it comes after the call, on what that has left of the inputs
        reply = super().ask_judge(request)
        if "every_size" in self.removed and request["op"] == "open":
            del reply["workloads"][1:]
        return reply


class OpenBox:
    """A sandbox whose steps leave what they should not, and whose clock looks at one process alone."""

    def __init__(self, box: Sandbox, removed: frozenset[str], cache: bytes) -> None:
        self._box, self._removed, self.cache = box, removed, cache
        self._step = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._box, name)

    def spawn(self, name: str, **options: Any) -> Child:
        if "cache_snapshot" in self._removed:
            options["cache"] = self.cache
        before = set(process_tree.descendants(self._box.zygote_pid))
        child = self._box.spawn(name, **options)
        self._step = next(pid for pid in process_tree.descendants(self._box.zygote_pid) if pid not in before)
        return child

    def cpu_seconds(self) -> float:
        if "whole_sandbox" not in self._removed or not self._step:
            return self._box.cpu_seconds()
        threads = Path(f"/proc/{self._step}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def reset(self) -> None:
        if "cache_snapshot" in self._removed:
            self.cache = self._box.read_cache() or self.cache
        self._box.reset()


class OpenEvaluator(evaluate.Evaluator):
    """The evaluator without the guards that an assignment names."""

    cache = b""

    def run(self, task: Assignment, box: Sandbox, sink: PointSink, *gates: Any, **options: Any) -> Outcome:
        removed = task.removed_guards
        weakened = ",".join(sorted(removed & JUDGE_GUARDS))
        self.judge_program = (OPEN_JUDGE, weakened) if weakened else evaluate.JUDGE
        self.clocks = {"cpu": type("Launch", (OpenLaunch,), {"removed": removed})}
        open_box: Any = OpenBox(box, removed, self.cache)
        outcome = super().run(replace(task, removed_guards=frozenset()), open_box, sink, *gates, **options)
        self.cache = open_box.cache
        if "clock_outside" in removed and (claims := CLAIM.findall(outcome.log)):
            outcome.score = float(claims[-1])
        if "all_work_counts" in removed:
            outcome.observations = [seen for seen in outcome.observations if seen.kind != "below_floor"]
        return outcome
