"""A launch under a stopwatch, for devices that keep no account of who used them: docs/decisions/0027.

    W = overhead + pads + sets * call      + copy     the candidate, by the worker's stopwatch
    P =            pads                    + copy     the judge, calling nothing
    R =            pads + sets * reference + copy     the judge, calling the reference

so a call takes (W - overhead - P) / sets. All calls of a batch are given to the device while it is busy with pads,
which also empty its caches; every call has inputs of its own, which nobody has read since. They are sealed until then,
and the key comes with the message that starts the clock: nothing can be worked out ahead. The outputs of the call whose
number the worker drew are copied behind it and judged as they were then: what is put off, or done for many calls
together, comes too late for it.
"""

from __future__ import annotations

import math
import random
import time
from statistics import median
from typing import Any

from benchmarks.contract import TrialFailed
from benchmarks.kernels.launch import FETCH_WALL, Cell, Launch, Timed

HANDLING = 3.0  # times as long as the judge may a candidate take to copy its outputs
AHEAD = 1.3  # times as long as the host takes to start all calls does the device need for the pads
SWEEPS = 2  # passes over pads, which empty the caches
PASSES = (SWEEPS + 1, 192)  # over the pads: at least and at most
LEAST = 1e-7  # seconds: nothing is faster than a launch
_LOTS = random.SystemRandom()


class StopwatchLaunch(Launch):
    rounds, most_sets, most_bytes, put_off = 3, 32, 2 << 30, 3e-4
    a_pass = 0.0  # seconds of one over the pads
    launching = 0.0  # seconds that the host took to start the calls of the last batch

    def get_ready(self) -> None:
        with self.judge_memory({"op": "pads"}) as (pads, memory):
            self.ask({"op": "pads", **pads}, memory, self.warm_seconds, "the sandbox")
        self.a_pass = max(float(pads["pass"]), LEAST)

    def settle(self, cell: Cell) -> None:
        """Find out how many calls a batch has, and how long the device has to be busy meanwhile."""
        sets = self.sets_in(cell)
        self._batch(cell, sets, self.warm_seconds)  # with which memory for all outputs is taken
        cell.sets, cell.passes = sets, self.passes_for(self.launching)

    def passes_for(self, launching: float) -> int:
        least, most = PASSES
        return max(least, min(most, SWEEPS + math.ceil(AHEAD * launching / self.a_pass)))

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        drawn = self.hand_inputs(cell, sets, _LOTS.getrandbits(31))
        keys = [_LOTS.getrandbits(31) for _ in range(cell.passes or PASSES[0])]
        audit = _LOTS.randrange(sets)
        request = {"keys": keys, "sweeps": SWEEPS, "audit": audit}
        referred: dict[str, Any] = {}
        if cell.batches % 2 == 0:  # the first time nobody knows yet what outputs look like
            referred = self.ask_judge({"op": "refer", **request})
        with self.judge_memory({"op": "room"}) as (room, memory):
            self.ask({"op": "outputs", **room, "keys": keys}, memory, FETCH_WALL, cell.name)
        call = {"op": "call", "problem": cell.problem, "sweeps": SWEEPS, "audit": audit, "key": drawn["key"]}
        self.ask({"op": "wake"}, (), FETCH_WALL, cell.name)  # as the judge does
        self._rest(cell)
        whole, _ = self._stopped(call, seconds, cell)
        fetching, answer = self._stopped({"op": "fetch"}, FETCH_WALL, cell)
        referred = referred or self.ask_judge({"op": "refer", **request})
        pads = float(self.ask_judge({"op": "pace", **request})["seconds"])
        if self.judge_on(cell, request):
            words = f"{cell.name}: what empties the caches before its calls was left out"
            self.observe("pads_skipped", "structural", "its calls meet warm caches", [words])
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        cell.bytes = drawn["stride"] + referred["stride"]
        copying = float(referred["copying"])
        called = whole - self.overhead - pads
        beside = max(fetching - self.overhead - HANDLING * copying - self.put_off, 0.0)
        solution = max((called + beside) / sets, LEAST)
        reference = max((float(referred["seconds"]) - pads) / sets, LEAST)
        cell.once = (whole + float(referred["seconds"]) + pads) / sets
        span, launched = _told(answer, cell)
        self.launching = max(launched, float(referred["launched"]))
        return Timed(solution, reference, max(called, LEAST), beside, (span / sets,))

    def measure_overhead(self, cell: Cell) -> float:
        return median(self._rest(cell) for _ in range(9))

    def _rest(self, cell: Cell) -> float:
        """Seconds of a message and its answer."""
        return self._stopped({"op": "rest"}, FETCH_WALL, cell)[0]

    def _stopped(self, message: dict[str, Any], seconds: float, cell: Cell) -> tuple[float, dict[str, Any]]:
        """Seconds from the message to the answer, and the answer."""
        began = time.perf_counter()
        answer = self.ask(message, (), seconds, cell.name, alert=True)
        return time.perf_counter() - began, answer


def _told(answer: dict[str, Any], cell: Cell) -> tuple[float, float]:
    """What the candidate says: seconds of all calls by its own events, and of its host to start them.

    Neither counts: with a wrong one its device is busy for too short or too long. Raises TrialFailed for no such words.
    """
    span, launched = answer.get("span"), answer.get("launched")
    if not (isinstance(span, float) and isinstance(launched, float) and math.isfinite(span + launched)):
        raise TrialFailed("bad_output", f"{cell.name}: somebody else answered 'fetch'")
    return span, max(launched, 0.0)
