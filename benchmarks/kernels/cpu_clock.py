"""A launch whose clock counts the CPU seconds of every process of the sandbox: docs/decisions/0026.

Work on another thread, or put off until after the answer, is on the bill.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.kernels.launch import AWAKE_AFTER, FETCH_WALL, Cell, Launch, Timed

QUIET = 2e-3  # seconds after an answer: the kernel counts a process's time when it goes to sleep
HANDLING = 2.0  # times as long as the judge may a candidate take to map inputs and to copy outputs, which are cold
RESTS = 15  # messages without a call
A_SET = 2e-5  # CPU seconds to lay out the tensors of a set, in Python


class CpuLaunch(Launch):
    rounds, most_sets, most_bytes, put_off = 6, 32, 24 << 20, 3e-4
    overhead = 0.0  # of a message and its answer, without a call

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        before = self.box.cpu_seconds()
        drawn = self.hand_inputs(cell, sets, 0, str(cell.batches))
        time.sleep(QUIET)
        referred = self.ask_judge({"op": "refer"}) if cell.batches % 2 else {}
        spent = self._spent({"op": "call", "problem": cell.problem}, (), seconds, cell.name)
        referred = referred or self.ask_judge({"op": "refer"})
        whole = self._fetch(cell) - before  # from here to there, and no moment of it goes uncounted
        handling = float(drawn["mapping"]) + float(referred["copying"])
        beside = whole - spent - handling - 2 * sets * A_SET
        cell.bytes = drawn["stride"] + referred["stride"]
        called = max(spent - self.overhead, 1e-9)
        charged = max(beside - (HANDLING - 1) * handling - self.put_off, 0.0)
        return Timed((called + charged) / sets, referred["seconds"] / sets, called, beside)

    def get_ready(self) -> None:
        self.overhead = self.measure_overhead()

    def pace(self, cell: Cell) -> None:
        """The reference is timed beside the calls: whatever a candidate does meanwhile is on its bill."""

    def settle(self, cell: Cell) -> None:
        """Nothing is to be found out."""

    def measure_overhead(self) -> float:
        rests = [self._spent({"op": "call"}, (), FETCH_WALL, "the sandbox") for _ in range(AWAKE_AFTER + RESTS)]
        return median(rests[AWAKE_AFTER:])

    def _spent(self, message: dict[str, Any], descriptors: Sequence[int], seconds: float, what: str) -> float:
        """CPU seconds of the sandbox from the message to the answer, and a little longer."""
        began = self.box.cpu_seconds()
        self.ask(message, descriptors, seconds, what)
        time.sleep(QUIET)
        return self.box.cpu_seconds() - began

    def _fetch(self, cell: Cell) -> float:
        """Fetch and compare. Returns the CPU seconds of the sandbox when all was compared."""
        with self.judge_memory({"op": "room"}) as (room, memory):
            self._spent({"op": "fetch", **room}, memory, FETCH_WALL, cell.name)
        self.judge_on(cell, {})
        compared = self.box.cpu_seconds()
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        return compared
