"""A launch under a stopwatch, for devices that keep no account of who used them: docs/decisions/0027.

    W = overhead + sets * (pads + call)      + copy     the candidate, by the worker's stopwatch
    P =            sets *  pads              + copy     the judge, calling nothing
    R =            sets * (pads + reference) + copy     the judge, calling the reference

so a call takes (W - overhead - P) / sets. Each call is alone on the device: pads that no cache holds, then the call,
then everything that the process told the device is waited for. The call whose number the worker drew is copied at once
and judged as it was then: what is put off, or done for many calls together, comes too late for it.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Any

from benchmarks.contract import TrialFailed
from benchmarks.kernels.launch import FETCH_WALL, WARM_UP_WALL, Cell, Launch, Timed

HANDLING = 3.0  # times as long as the judge may a candidate take to copy its outputs
PASSES = (1, 4)  # over the pads: more where the host needs longer to tell the device what to do
HOST_BOUND = 0.95  # more passes are taken where a call gets that much faster by them
LEAST = 1e-7  # seconds: nothing is faster than a launch
_LOTS = random.SystemRandom()


class StopwatchLaunch(Launch):
    rounds, most_sets, most_bytes, put_off = 3, 32, 2 << 30, 3e-4

    def get_ready(self) -> None:
        with self.judge_memory({"op": "pads"}) as (pads, memory):
            self.ask({"op": "pads", **pads}, memory, WARM_UP_WALL, "the sandbox")

    def settle(self, cell: Cell) -> None:
        """Find out whether the host is what takes so long, and let it get further ahead then."""
        sets, found = self.sets_in(cell), {}
        few, many = PASSES
        for passes in (few, few, many):  # with the first one memory for all outputs is taken
            cell.passes = passes
            timed = self._batch(cell, sets, WARM_UP_WALL)
            found[passes] = timed.solution + timed.reference
        cell.passes = many if found[many] < HOST_BOUND * found[few] else few

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        drawn = self.hand_inputs(cell, sets)
        keys = [[_LOTS.getrandbits(31) for _ in range(cell.passes)] for _ in range(sets)]
        audit = _LOTS.randrange(sets)
        paced = {"keys": keys, "audit": audit}
        referred: dict[str, Any] = {}
        if cell.batches % 2 == 0:  # the first time nobody knows yet what outputs look like
            referred = self.ask_judge({"op": "refer", **paced})
        with self.judge_memory({"op": "room"}) as (room, memory):
            self.ask({"op": "outputs", **room, "keys": keys}, memory, FETCH_WALL, cell.name)
        whole, _ = self._stopped({"op": "call", "problem": cell.problem, "audit": audit}, seconds, cell)
        fetching, answer = self._stopped({"op": "fetch"}, FETCH_WALL, cell)
        referred = referred or self.ask_judge({"op": "refer", **paced})
        pads = float(self.ask_judge({"op": "pace", **paced})["seconds"])
        if self.judge_on(cell, paced):
            words = f"{cell.name}: what empties the caches between its calls was left out"
            self.observe("pads_skipped", "structural", "its calls are not held apart", [words])
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        cell.bytes = drawn["stride"] + referred["stride"]
        copying = float(referred["copying"])
        called = whole - self.overhead - pads
        beside = max(fetching - self.overhead - HANDLING * copying - self.put_off, 0.0)
        solution = max((called + beside) / sets, LEAST)
        reference = max((float(referred["seconds"]) - pads) / sets, LEAST)
        cell.once = (whole + float(referred["seconds"]) + pads) / sets
        return Timed(solution, reference, max(called, LEAST), beside, _spans(answer, sets, cell))

    def measure_overhead(self, cell: Cell) -> float:
        call = {"op": "call", "problem": cell.problem, "audit": -1}
        return median(self._stopped(call, FETCH_WALL, cell)[0] for _ in range(9))

    def _stopped(self, message: dict[str, Any], seconds: float, cell: Cell) -> tuple[float, dict[str, Any]]:
        """Seconds from the message to the answer, and the answer."""
        began = time.perf_counter()
        answer = self.ask(message, (), seconds, cell.name)
        return time.perf_counter() - began, answer


def _spans(answer: dict[str, Any], sets: int, cell: Cell) -> list[float]:
    """What the candidate's own events say of each call. Raises TrialFailed where it is no such list."""
    spans = answer.get("spans")
    if not (isinstance(spans, list) and len(spans) == sets and all(isinstance(one, float) for one in spans)):
        raise TrialFailed("bad_output", f"{cell.name}: somebody else answered 'fetch'")
    return spans
