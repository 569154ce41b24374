"""A launch under a stopwatch, for devices that keep no account of who used them: docs/decisions/0027.

    B = overhead + pads                    + copy     the candidate's process with nothing to call, before the import
    W = overhead + pads + sets * call      + copy     the same with its solution; both by the worker's stopwatch
    R =            pads + sets * reference + copy     the judge, calling the reference
    O =            pads                    + copy     the judge, calling nothing

so a call takes (W - B) / sets, one of the reference (R - O) / sets. All but W is measured before a line of the
candidate was imported: a process that shares the device could hold up the judge, or be slow where nothing is called.

All calls of a batch are given to the device while it is busy with pads, which also empty its caches; every call has
inputs of its own, which nobody has read since. They are sealed until then, and the key comes with the message that
starts the clock: nothing can be worked out ahead. The outputs of the call whose number the worker drew are copied
behind it and judged as they were then: what is put off, or done for many calls together, comes too late for it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.contract import TrialFailed
from benchmarks.kernels.launch import AWAKE_AFTER, FETCH_WALL, Cell, Launch, Pace, Timed

HANDLING, FREE = 1.2, 1e-4  # times as long, and seconds more, than before the import may handing over outputs take
AHEAD = 1.3  # times as long as the host takes to start all calls does the device need for the pads
SWEEPS = 2  # passes over pads, which empty the caches
PASSES = (3, 6, 12, 24, 48, 96, 192)  # over the pads: what the host needs, rounded up to one of these
LEAST = 1e-7  # seconds: nothing is faster than a launch
_LOTS = random.SystemRandom()


class StopwatchLaunch(Launch):
    rounds, most_sets, most_bytes, put_off = 3, 32, 2 << 30, 3e-4
    launching = 0.0  # seconds that the host took to start the calls of the last batch

    def get_ready(self) -> None:
        with self.judge_memory({"op": "pads", "passes": PASSES}) as (pads, memory):
            self.ask({"op": "pads", "size": pads["size"]}, memory, FETCH_WALL, "the sandbox")
        self.passing = dict(zip(PASSES, map(float, pads["seconds"]), strict=True))  # seconds of so many passes
        for _ in range(AWAKE_AFTER):
            self._stopped({"op": "rest"}, FETCH_WALL, "the sandbox")

    def pace(self, cell: Cell) -> None:
        """The reference, and a batch without its calls."""
        with self.drawn_inputs(cell, 1, "once", self._key()) as (drawn, _):
            request = self._request(PASSES[0], 1)
            referred = self.ask_judge({"op": "refer", **request})  # what it compiles is not in the next
            cell.bytes = drawn["stride"] + referred["stride"]
            cell.once = 2 * self._reference(request)  # of the solution nothing is known yet
        cell.sets = sets = self.sets_in(cell)
        drawn = self.hand_inputs(cell, sets, self._key(), "apart")
        referred = self.ask_judge({"op": "refer", **self._request(PASSES[0], sets)})
        passes = passes_for(float(referred["launched"]), self.passing)
        reference = median(self._reference(self._request(passes, sets)) for _ in range(self.rounds))
        found = []
        for _ in range(1 + self.rounds):
            request = self._request(passes, sets)
            found.append(self._exchange({"key": drawn["key"]}, request, FETCH_WALL, cell.name)[:2])
            self.ask_judge({"op": "passed", **request})
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        whole, fetching = (median(times) for times in zip(*found[1:], strict=True))
        cell.paced = Pace(passes, whole, fetching, reference)

    def _reference(self, request: dict[str, Any]) -> float:
        """Seconds of one call, of the batch that was drawn last."""
        whole = float(self.ask_judge({"op": "refer", **request})["seconds"])
        without = float(self.ask_judge({"op": "pace", **request})["seconds"])
        return float(max((whole - without) / request["sets"], LEAST))

    def settle(self, cell: Cell) -> None:
        """Find out how long the device has to be busy while the host starts all calls."""
        self._batch(cell, self.sets_in(cell), self.warm_seconds)  # with which memory for all outputs is taken
        cell.passes = passes_for(self.launching, self.passing)

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        drawn = self.hand_inputs(cell, sets, self._key(), str(cell.batches))
        request = self._request(cell.passes or PASSES[0], sets)
        if cell.paced is None:  # it is called, and not measured: nobody knows yet what outputs look like
            self.ask_judge({"op": "refer"})
        call = {"problem": cell.problem, "key": drawn["key"]}
        whole, fetching, answer = self._exchange(call, request, seconds, cell.name)
        if self.judge_on(cell, request):
            words = f"{cell.name}: what empties the caches before its calls was left out"
            self.observe("pads_skipped", "structural", "its calls meet warm caches", [words])
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        span, self.launching = _told(answer, cell)
        return self._timed(cell, sets, whole, fetching, span)

    def _exchange(
        self, call: dict[str, Any], request: dict[str, Any], seconds: float, what: str
    ) -> tuple[float, float, dict[str, Any]]:
        """Seconds of the message that starts the calls and of that for their outputs, and the answer to this one."""
        with self.judge_memory({"op": "room"}) as (room, memory):
            self.ask({"op": "outputs", **room, "keys": request["keys"]}, memory, FETCH_WALL, what)
        self.ask({"op": "wake"}, (), FETCH_WALL, what)  # as the judge does
        self._stopped({"op": "rest"}, FETCH_WALL, what)
        told = {name: request[name] for name in ("sweeps", "audit")}
        whole, _ = self._stopped({"op": "call", **call, **told}, seconds, what)
        fetching, answer = self._stopped({"op": "fetch"}, FETCH_WALL, what)
        return whole, fetching, answer

    def _timed(self, cell: Cell, sets: int, whole: float, fetching: float, span: float) -> Timed:
        paced = cell.paced or Pace(PASSES[0], 0.0, 0.0, LEAST)
        without = paced.whole + self.passing[cell.passes or PASSES[0]] - self.passing[paced.passes]
        called = whole - without
        beside = max(fetching - HANDLING * paced.fetching - FREE, 0.0)
        solution = max((called + beside) / sets, LEAST)
        parts = {"whole": whole, "without": without, "span": span, "fetching": fetching, "handing": paced.fetching}
        return Timed(solution, paced.reference, max(called, LEAST), beside, (span / sets,), parts)

    @staticmethod
    def _key() -> int:
        return _LOTS.getrandbits(31) or 1

    def _request(self, passes: int, sets: int) -> dict[str, Any]:
        """Keys of so many passes, and the number of the call whose outputs are copied right behind it."""
        keys = [_LOTS.getrandbits(31) for _ in range(passes)]
        return {"keys": keys, "sweeps": SWEEPS, "audit": _LOTS.randrange(sets), "sets": sets}

    def _stopped(self, message: dict[str, Any], seconds: float, what: str) -> tuple[float, dict[str, Any]]:
        """Seconds from the message to the answer, and the answer."""
        began = time.perf_counter()
        answer = self.ask(message, (), seconds, what, alert=True)
        return time.perf_counter() - began, answer


def passes_for(launching: float, passing: Mapping[int, float]) -> int:
    """Over the pads, so that they take longer than the host needs to start all calls, and the caches are empty then.

    `passing`: the seconds of so many passes.
    """
    needed = SWEEPS * passing[PASSES[-1]] / PASSES[-1] + AHEAD * launching
    return next((count for count in PASSES if passing[count] > needed), PASSES[-1])


def _told(answer: dict[str, Any], cell: Cell) -> tuple[float, float]:
    """What the candidate says: seconds of all calls by its own events, and of its host to start them.

    Neither counts: with a wrong one its device is busy for too short or too long. Raises TrialFailed for no such words.
    """
    span, launched = answer.get("span"), answer.get("launched")
    if not (isinstance(span, float) and isinstance(launched, float) and math.isfinite(span + launched)):
        raise TrialFailed("bad_output", f"{cell.name}: somebody else answered 'fetch'")
    return span, max(launched, 0.0)
