"""One launch: a candidate's process in the sandbox, the judge's beside it, and the worker's clock between the two.

    draw inputs (judge) -> call (candidate, timed from outside) -> fetch the outputs (candidate) -> compare (judge)

Every set of inputs is called once: nothing that a call computed is of use to another. What is subtracted from a
candidate's time is measured before anything of it is imported: afterwards it could make that longer. How a batch is
timed, and when the reference is, says the clock of the preset: `cpu_clock`, `stopwatch`.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, ClassVar

import numpy as np

from benchmarks.contract import Assignment, Observation, Outcome, PointSink, TrialFailed
from benchmarks.judging import JudgeProcess
from benchmarks.kernels.cells import CellTimes
from benchmarks.kernels.pace import Pace
from runners.sandbox import Sandbox

MOST = 1 << 16  # bytes of a reply
JUDGE_SECONDS = 120.0  # for drawing, a reference or a comparison
WARM_UP_WALL = 120.0  # for importing a solution, and for its first call of a workload: compilers work in both
FETCH_WALL = 60.0
AWAKE_AFTER = 10  # messages, which take longer in a process that did nothing so far
MOSTLY = 2.0  # times the seconds of its calls: who works so much beside them works there
SURELY = 3.0  # times `put_off` before somebody is accused: a busy machine takes more, which is only charged
Message = Mapping[str, Any]


class JudgeFailed(TrialFailed):
    """The judge had no answer: nothing that a candidate is to blame for."""


@dataclass
class Cell:
    """One workload of one problem while it is measured. Times in seconds of one call."""

    problem: str
    uuid: str
    bound_ms: float | None = None
    floor_ms: float | None = None
    scaled_ms: tuple[float, float] | None = None  # the published bound and baseline, carried over to this device
    once: float = math.inf  # of a call of solution and reference, with all that is timed beside them
    bytes: int = 0  # of the inputs and outputs of one call
    launch: float = 0.0  # that the host takes to start a call of the reference, under a stopwatch
    batches: int = 0
    sets: int = 0  # calls of a timed batch, once that is settled
    passes: int = 0  # over the pads before them, under a stopwatch
    paced: Pace | None = None  # what was measured before the solution was there, under a stopwatch
    called: list[float] = field(default_factory=list)  # seconds in all calls of each timed batch
    beside: list[float] = field(default_factory=list)  # and beside them, more than handling inputs and outputs takes
    solution: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    spans: list[float] = field(default_factory=list)  # of a call by the candidate's own events
    parts: list[Mapping[str, float]] = field(default_factory=list)  # seconds that each timed batch was made of
    latency: float = math.inf  # of a call of the solution, from all timed batches

    @property
    def name(self) -> str:
        return f"{self.problem}/{self.uuid}"

    @property
    def times(self) -> CellTimes:
        bound, baseline = self.scaled_ms or (None, None)
        seen = 1e3 * (min(self.called) + min(self.beside)) / self.sets if self.spans else None
        return CellTimes(1e3 * self.latency, 1e3 * median(self.reference), self.bound_ms, bound, baseline, seen)


@dataclass
class Timed:
    """What one batch came to, in seconds: of one call, and of all calls and what was done beside them."""

    solution: float
    reference: float
    called: float
    beside: float
    spans: Sequence[float] = ()
    parts: Mapping[str, float] = field(default_factory=dict)


class Launch(ABC):
    rounds: ClassVar[int]  # timed batches of a workload
    most_sets: ClassVar[int]  # calls of a batch
    most_bytes: ClassVar[int]  # of the inputs and outputs of a batch
    put_off: ClassVar[float]  # seconds beside the calls of a batch that are nobody's fault

    def __init__(
        self, task: Assignment, box: Sandbox, judge: JudgeProcess, channel: socket.socket, outcome: Outcome,
        sink: PointSink,
    ) -> None:  # fmt: skip
        self.task, self.box, self.judge, self.channel = task, box, judge, channel
        self.outcome, self.sink = outcome, sink
        self.cells: list[Cell] = []
        self.share = 0.0  # of the budget, for a timed batch
        self.warm_until = math.inf  # of time.monotonic
        self.asked = 0  # messages to the candidate; each answer names its own

    @abstractmethod
    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        """Draw fresh inputs, call the solution and the reference on each once, compare the outputs.

        `seconds`: how long the calls may take. Raises TrialFailed where anything is wrong.
        """

    @abstractmethod
    def get_ready(self) -> None:
        """What comes before anything else, and before anything of the candidate is imported."""

    @abstractmethod
    def pace(self, cell: Cell) -> None:
        """What is measured of a workload before anything of the candidate is imported."""

    @abstractmethod
    def settle(self, cell: Cell) -> None:
        """After a workload was called for the first time."""

    def latency_of(self, cell: Cell) -> float:
        """Seconds of a call, from all timed batches."""
        return median(cell.solution)

    def warm_up(self) -> None:
        """Import every solution and call it on every workload, untimed; wrong ones fail here."""
        self.get_ready()
        known = {each: self.ask_judge({"op": "open", "problem": each})["workloads"] for each in self.task.problems}
        self.share = self.task.preset.budget_seconds / (sum(map(len, known.values())) * self.rounds)
        for problem, workloads in known.items():
            for each in workloads:
                scaled = None if each["scaled_ms"] is None else tuple(each["scaled_ms"])
                self.cells.append(Cell(problem, each["uuid"], each["bound_ms"], each["floor_ms"], scaled))
        for cell in self.cells:
            self.pace(cell)
        self.warm_until = time.monotonic() + self.task.preset.wall_cap_seconds * len(self.task.problems)
        for problem in known:
            self.ask({"op": "load", "problem": problem}, (), self.warm_seconds, problem)
            for cell in self.cells:
                if cell.problem == problem:
                    self._batch(cell, 1, self.warm_seconds)
                    self._warm(cell)  # what the first compiled is not in the second
                    self.settle(cell)

    def compile(self, seconds: float) -> None:
        """Import every solution and call it on every workload. Raises TrialFailed where that takes longer."""
        self.warm_until = time.monotonic() + seconds
        self.get_ready()
        for problem in self.task.problems:
            workloads = self.ask_judge({"op": "open", "problem": problem})["workloads"]
            self.ask({"op": "load", "problem": problem}, (), self.warm_seconds, problem)
            for each in workloads:
                self._batch(Cell(problem, each["uuid"]), 1, self.warm_seconds)

    @property
    def warm_seconds(self) -> float:
        """How long the next step of the warm-up may take. Raises TrialFailed where it has taken too long already."""
        if (left := self.warm_until - time.monotonic()) <= 0:
            raise TrialFailed("timeout", "importing, compiling and first calls take too long; let less be compiled")
        return min(left, WARM_UP_WALL)

    def measure(self) -> None:
        """Time every workload, by turns: no workload has a quiet or a noisy stretch of the launch to itself."""
        deadline = time.monotonic() + self.task.preset.wall_cap_seconds
        for number in range(self.rounds):
            for cell in self.cells:
                if (left := deadline - time.monotonic()) <= 0:
                    raise TrialFailed("timeout", f"{cell.name}: the timed calls took too long")
                timed = self._batch(cell, self.sets_in(cell), left)
                cell.called.append(timed.called)
                cell.beside.append(timed.beside)
                cell.solution.append(timed.solution)
                cell.reference.append(timed.reference)
                cell.spans += timed.spans
                cell.parts.append(timed.parts)
                self.sink(f"latency_ms {cell.name}", np.array([number]), np.array([1e3 * timed.solution]))
        for cell in self.cells:
            cell.latency = self.latency_of(cell)
        if lines := [
            f"{cell.name}: {1e3 * median(cell.beside):.2f} ms beside {1e3 * median(cell.called):.2f} in the calls"
            for cell in self.cells
            if median(cell.beside) > MOSTLY * median(cell.called) + SURELY * self.put_off
        ]:
            self.observe("work_beside", "structural", "most of its work is done beside the calls", lines)

    def look_further(self) -> None:
        """Whether it is right at sizes that are not listed, too: one a problem, untimed."""
        for problem in self.task.problems:
            try:
                found = self.ask_judge({"op": "hide", "problem": problem, "seed": self.task.seed})
                if "uuid" in found:
                    self._batch(Cell(problem, found["uuid"]), 1, WARM_UP_WALL)
            except JudgeFailed:
                return
            except TrialFailed as failed:
                self.observe("other_size", "structural", "is wrong at a size that is not listed", [str(failed)])
                if failed.failure.kind != "bad_output":
                    return  # its process is gone or busy

    def sets_in(self, cell: Cell) -> int:
        """How many calls a timed batch has: as many as fit its time and memory, at least one."""
        if cell.sets:
            return cell.sets
        by_time = self.share / max(cell.once, 1e-9)
        return int(max(1, min(self.most_sets, by_time, self.most_bytes // max(cell.bytes, 1))))

    def observe(self, kind: str, severity: str, meaning: str, lines: Sequence[str]) -> None:
        self.outcome.observations.append(Observation(kind, severity, meaning, tuple(lines)))

    def _batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        timed = self.time_batch(cell, sets, seconds)
        cell.batches += 1
        return timed

    def _warm(self, cell: Cell) -> None:
        timed = self._batch(cell, 1, self.warm_seconds)
        cell.once = timed.solution + timed.reference

    # --- talking

    def hand_inputs(self, cell: Cell, sets: int, key: int, batch: str) -> dict[str, Any]:
        """Let the judge draw, and the candidate map what was drawn, sealed by a key; the judge's answer."""
        with self.drawn_inputs(cell, sets, batch, key) as (drawn, memory):
            laid = {"op": "inputs"} | {key: drawn[key] for key in ("places", "scalars", "stride", "size")}
            self.ask(laid, memory, FETCH_WALL, cell.name)
        return drawn

    def drawn_inputs(
        self, cell: Cell, sets: int, batch: str, key: int
    ) -> AbstractContextManager[tuple[dict[str, Any], list[int]]]:
        """As `judge_memory`: sets of inputs, others for each `batch`. With a key their memory stays for the launch."""
        request = {"seed": self.task.seed, "batch": batch, "sets": sets, "uuid": cell.uuid, "key": key}
        return self.judge_memory({"op": "draw", "problem": cell.problem, "stays": key > 0, **request})

    def judge_on(self, cell: Cell, request: Message) -> bool:
        """Let the judge compare a batch. Whether the pads were left out. Raises TrialFailed for wrong outputs."""
        found = self.ask_judge({"op": "check", **request})
        if found["mutated"]:
            raise TrialFailed("bad_output", f"{cell.name}: it writes to its inputs; return new tensors")
        if found["reason"]:
            raise TrialFailed("bad_output", f"{cell.name}: {found['reason']}")
        return bool(found["skipped"])

    def ask_judge(self, request: Message) -> dict[str, Any]:
        late = "the judge took too long over a reference"
        try:
            return self.judge.ask({**request, "seconds": JUDGE_SECONDS}, (), late)
        except TrialFailed as failed:
            raise JudgeFailed(failed.failure.kind, failed.failure.message) from failed

    @contextmanager
    def judge_memory(self, request: Message) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """The judge's answer and the memory that comes with it."""
        reply = self.ask_judge(request)
        memory: list[int] = reply.pop("descriptors", [])
        try:
            yield reply, memory
        finally:
            for descriptor in memory:
                os.close(descriptor)

    def ask(self, message: Message, descriptors: Sequence[int], seconds: float, what: str) -> dict[str, Any]:
        """The candidate's answer. Raises TrialFailed where it fails, dies, or does not answer in time."""
        self.asked += 1
        content = json.dumps({**message, "id": self.asked}).encode()
        try:
            self.channel.settimeout(max(seconds, 0.01))
            socket.send_fds(self.channel, [content], descriptors)
            answer = self.channel.recv(MOST)
        except TimeoutError:
            raise TrialFailed("timeout", f"{what}: no answer to {message['op']!r} within {seconds:.0f} s") from None
        except OSError:
            answer = b""
        if not answer:
            raise TrialFailed("crash", f"{what}: it ended in {message['op']!r}")
        try:
            reply = json.loads(answer)
            wrong, answers = reply.get("wrong"), reply.get("id")
        except (ValueError, AttributeError, RecursionError):
            answers, wrong = None, None
        if answers != self.asked:
            raise TrialFailed("bad_output", f"{what}: somebody else answered {message['op']!r}")
        if wrong:
            raise TrialFailed("bad_output", f"{what}: {str(wrong)[:400]}")
        return dict(reply)
