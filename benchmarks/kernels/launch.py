"""One launch: a candidate's process in the sandbox, the judge's beside it, and the worker's clock between the two.

    draw inputs (judge) -> call (candidate, timed from outside) -> run the reference (judge, timed by itself)
                        -> fetch the outputs (candidate) -> compare (judge)

Every set of inputs is called once: nothing that a call computed is of use to another. Candidate and reference take
turns in being first. The clock is the worker's; it counts the CPU seconds of every process of the sandbox, until the
outputs are here: work on another thread, or put off until after the answer, is on the bill.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contract import Assignment, Observation, Outcome, PointSink, TrialFailed
from benchmarks.judging import JudgeProcess
from benchmarks.kernels.cells import CellTimes
from runners.sandbox import Sandbox

MOST = 1 << 16  # bytes of a reply
JUDGE_SECONDS = 120.0  # for drawing, a reference or a comparison
WARM_UP_WALL = 120.0  # for importing a solution, and for its first call of a workload: compilers work in both
FETCH_WALL = 60.0
ROUNDS = 6  # timed batches of a workload
MOST_SETS = 32  # calls of a batch
MOST_BYTES = 24 << 20  # of the inputs and outputs of a batch
QUIET = 2e-3  # seconds after an answer: the kernel counts a process's time when it goes to sleep
HANDLING = 2.0  # times as long as the judge may a candidate take to map inputs and to copy outputs, which are cold
A_SET = 2e-5  # CPU seconds to lay out the tensors of a set, in Python
PUT_OFF = 3e-4  # CPU seconds beside the calls of a batch that are nobody's fault
MOSTLY = 2.0  # times the CPU seconds of its calls: who works so much beside them works there
SIZE_STAYS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
POISON = b"\xff" * (1 << 20)  # NaN in every floating dtype


class JudgeFailed(TrialFailed):
    """The judge had no answer: nothing that a candidate is to blame for."""


@dataclass
class Cell:
    """One workload of one problem while it is measured. Times in seconds of one call."""

    problem: str
    uuid: str
    bound_ms: float | None
    floor_ms: float | None
    solution_first: float = math.inf  # of the warm-up
    reference_first: float = math.inf
    bytes: int = 0  # of the inputs and outputs of one call
    batches: int = 0
    called: float = 0.0  # CPU seconds in all timed calls
    beside: float = 0.0  # and beside them, more than it takes to handle inputs and outputs
    solution: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.problem}/{self.uuid}"

    @property
    def times(self) -> CellTimes:
        return CellTimes(1e3 * median(self.solution), 1e3 * median(self.reference), self.bound_ms)


class Launch:
    def __init__(
        self, task: Assignment, box: Sandbox, judge: JudgeProcess, channel: socket.socket, outcome: Outcome,
        sink: PointSink,
    ) -> None:  # fmt: skip
        self.task, self.box, self.judge, self.channel = task, box, judge, channel
        self.outcome, self.sink = outcome, sink
        self.cells: list[Cell] = []
        self.overhead = 0.0
        self.asked = 0  # messages to the candidate; each answer names its own

    def warm_up(self) -> None:
        """Import every solution and call it once on every workload, untimed; wrong ones fail here."""
        for problem in self.task.problems:
            known = self._judge({"op": "open", "problem": problem})
            self._candidate({"op": "load", "problem": problem}, [], WARM_UP_WALL, problem)
            for each in known["workloads"]:
                cell = Cell(problem, each["uuid"], each["bound_ms"], each["floor_ms"])
                self._batch(cell, 1, WARM_UP_WALL, timed=False)
                self._batch(cell, 1, WARM_UP_WALL, timed=False)  # what the first compiled is not in the second
                self.cells.append(cell)
        self.overhead = self._overhead()

    def measure(self) -> None:
        """Time every workload, by turns: no workload has a quiet or a noisy stretch of the launch to itself."""
        deadline = time.monotonic() + self.task.preset.wall_cap_seconds
        share = self.task.preset.budget_seconds / (len(self.cells) * ROUNDS)
        for number in range(ROUNDS):
            for cell in self.cells:
                if (left := deadline - time.monotonic()) <= 0:
                    raise TrialFailed("timeout", f"{cell.name}: the timed calls took too long")
                self._batch(cell, _sets(cell, share), left, timed=True)
                latency = np.array([1e3 * cell.solution[-1]])
                self.sink(f"latency_ms {cell.name}", np.array([number]), latency)
        if lines := [
            f"{cell.name}: {1e3 * cell.beside:.2f} ms beside {1e3 * cell.called:.2f} in the calls"
            for cell in self.cells
            if cell.beside > MOSTLY * cell.called + ROUNDS * PUT_OFF
        ]:
            meaning = "most of its work is done beside the calls"
            self.outcome.observations.append(Observation("work_beside", "structural", meaning, tuple(lines)))

    def look_further(self) -> None:
        """Whether it is right at sizes that are not listed, too: one a problem, untimed."""
        for problem in self.task.problems:
            try:
                found = self._judge({"op": "hide", "problem": problem, "seed": self.task.seed})
                if "uuid" not in found:
                    continue
                self._batch(Cell(problem, found["uuid"], None, None), 1, WARM_UP_WALL, timed=False)
            except JudgeFailed:
                return
            except TrialFailed as failed:
                meaning, words = "is wrong at a size that is not listed", str(failed)
                self.outcome.observations.append(Observation("other_size", "structural", meaning, (words,)))
                if failed.failure.kind != "bad_output":
                    return  # its process is gone or busy

    def _batch(self, cell: Cell, sets: int, seconds: float, *, timed: bool) -> None:
        """Draw fresh inputs, call the solution and the reference on them once each, compare the outputs."""
        seed = {"seed": self.task.seed, "batch": cell.batches, "sets": sets, "uuid": cell.uuid}
        with memory_file() as inputs:
            drawn = self._judge({"op": "draw", "problem": cell.problem, **seed}, [inputs])
            laid = {"places": drawn["places"], "scalars": drawn["scalars"], "stride": drawn["stride"]}
            early = self._spent({"op": "inputs", **laid}, [inputs], FETCH_WALL, cell)
            reference_first = bool(cell.batches % 2)
            referred = self._judge({"op": "refer"}) if reference_first else {}
            began = self.box.cpu_seconds()
            spent = self._spent({"op": "call", "problem": cell.problem}, [], seconds, cell)
            referred = referred or self._judge({"op": "refer"})
            late = self.box.cpu_seconds() - began - spent
        cell.batches += 1
        fetching = self._check(cell, sets, referred)
        early -= float(drawn["mapping"]) + sets * A_SET
        fetching -= float(referred["copying"]) + sets * A_SET
        cell.bytes = drawn["stride"] + referred["stride"]
        called = max(spent - self.overhead, 1e-9)
        charged = late + early - (HANDLING - 1) * float(drawn["mapping"]) + fetching
        charged -= (HANDLING - 1) * float(referred["copying"]) + PUT_OFF
        solution = (called + max(charged, 0.0)) / sets
        reference = referred["seconds"] / sets
        if not timed:
            cell.solution_first, cell.reference_first = solution, reference
            return
        cell.called += called
        cell.beside += early + late + fetching
        cell.solution.append(solution)
        cell.reference.append(reference)

    def _spent(self, message: dict[str, Any], descriptors: Sequence[int], seconds: float, cell: Cell) -> float:
        """CPU seconds of the sandbox from the message to the answer, and a little longer."""
        began = self.box.cpu_seconds()
        self._candidate(message, descriptors, seconds, cell.name)
        time.sleep(QUIET)
        return self.box.cpu_seconds() - began

    def _check(self, cell: Cell, sets: int, referred: dict[str, Any]) -> float:
        """Fetch and compare. Returns the CPU seconds that fetching took, and what was done until all was compared."""
        size = max(referred["stride"] * sets, 1)
        laid = {"op": "fetch", "places": referred["places"], "stride": referred["stride"]}
        with memory_file(size) as outputs:
            began = self.box.cpu_seconds()
            self._spent(laid, [outputs], FETCH_WALL, cell)
            found = self._judge({"op": "check"}, [outputs])
            took = self.box.cpu_seconds() - began
            self._candidate({"op": "drop"}, [], FETCH_WALL, cell.name)
        if found["mutated"]:
            raise TrialFailed("bad_output", f"{cell.name}: it writes to its inputs; return new tensors")
        if found["reason"]:
            raise TrialFailed("bad_output", f"{cell.name}: {found['reason']}")
        return took

    def _overhead(self) -> float:
        """Seconds of a message and its answer, without a call."""
        cell = self.cells[0]
        nothing: dict[str, Any] = {"op": "inputs", "places": [], "scalars": [], "stride": 0}
        with memory_file(1) as inputs:
            self._candidate(nothing, [inputs], FETCH_WALL, cell.name)
        call = {"op": "call", "problem": cell.problem}
        return median(self._spent(call, [], FETCH_WALL, cell) for _ in range(5))

    def _judge(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        late = "the judge took too long over a reference"
        try:
            return self.judge.ask(request | {"seconds": JUDGE_SECONDS}, descriptors, late)
        except TrialFailed as failed:
            raise JudgeFailed(failed.failure.kind, failed.failure.message) from failed

    def _candidate(
        self, message: dict[str, Any], descriptors: Sequence[int], seconds: float, what: str
    ) -> dict[str, Any]:
        """Raises TrialFailed where the candidate fails, dies, or does not answer in time."""
        self.asked += 1
        self.channel.settimeout(max(seconds, 0.01))
        try:
            socket.send_fds(self.channel, [json.dumps(message | {"id": self.asked}).encode()], descriptors)
            content = self.channel.recv(MOST)
        except TimeoutError:
            raise TrialFailed("timeout", f"{what}: no answer to {message['op']!r} within {seconds:.0f} s") from None
        except OSError:
            content = b""
        if not content:
            raise TrialFailed("crash", f"{what}: it ended in {message['op']!r}")
        try:
            reply = json.loads(content)
            wrong, answers = reply.get("wrong"), reply.get("id")
        except (ValueError, AttributeError, RecursionError):
            answers, wrong = None, None
        if answers != self.asked:
            raise TrialFailed("bad_output", f"{what}: somebody else answered {message['op']!r}")
        if wrong:
            raise TrialFailed("bad_output", f"{what}: {str(wrong)[:400]}")
        return dict(reply)


def _sets(cell: Cell, seconds: float) -> int:
    """How many calls a batch has: as many as fit its time and memory, at least one."""
    by_time = seconds / max(cell.solution_first + cell.reference_first, 1e-9)
    return int(max(1, min(MOST_SETS, by_time, MOST_BYTES // max(cell.bytes, 1))))


@contextmanager
def memory_file(poisoned: int = 0) -> Iterator[int]:
    """A descriptor of a file in memory; empty, or of so many bytes, all NaN: then nobody can change its size."""
    memory = os.memfd_create("kernel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = poisoned
        while left > 0:
            left -= os.write(memory, POISON[: min(left, len(POISON))])
        if poisoned:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SIZE_STAYS)
        yield memory
    finally:
        os.close(memory)
