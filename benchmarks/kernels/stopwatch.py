"""A launch under a stopwatch, for devices that keep no account of who used them: docs/decisions/0027.

    P =            pads                    + copy     the judge, calling nothing, over the candidate's memory
    R =            pads + sets * reference + copy     the judge, calling the reference
    O =            pads                    + copy     the judge, calling nothing, over its own memory
    W = overhead + pads + sets * call      + copy     the candidate, by the worker's stopwatch

so a call takes (W - overhead - P) / sets, one of the reference (R - O) / sets. All but W is measured before a line of
the candidate was imported: a process that shares the device with the judge could hold it up.

All calls of a batch are given to the device while it is busy with pads, which also empty its caches; every call has
inputs of its own, which nobody has read since. They are sealed until then, and the key comes with the message that
starts the clock: nothing can be worked out ahead. The outputs of the call whose number the worker drew are copied
behind it and judged as they were then: what is put off, or done for many calls together, comes too late for it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.contract import TrialFailed
from benchmarks.kernels.launch import FETCH_WALL, Cell, Launch, Pace, Timed

HANDLING = 3.0  # times as long as the judge may a candidate take to copy its outputs
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

    def pace(self, cell: Cell) -> None:
        """The reference, and all of a batch but its calls, by the judge's own stopwatch."""
        with self._drawn_apart(cell, 1) as drawn:
            request = self._request(PASSES[0], 1)
            referred = self.ask_judge({"op": "refer", **request})  # what it compiles is not in the next
            cell.bytes = drawn["stride"] + referred["stride"]
            cell.once = 2 * max(self._paced(request)[1], LEAST)  # of the solution nothing is known yet
        cell.sets = sets = self.sets_in(cell)
        with self._drawn_apart(cell, sets):
            referred = self.ask_judge({"op": "refer", **self._request(PASSES[0], sets)})
            passes = passes_for(float(referred["launched"]), self.passing)
            found = [self._paced(self._request(passes, sets)) for _ in range(self.rounds)]
        pads, reference = (median(times) for times in zip(*found, strict=True))
        cell.paced = Pace(passes, pads, max(reference / sets, LEAST), float(referred["copying"]) / sets)

    @contextmanager
    def _drawn_apart(self, cell: Cell, sets: int) -> Iterator[dict[str, Any]]:
        """Inputs that no candidate is handed."""
        with self.drawn_inputs(cell, sets, f"apart {sets}", _LOTS.getrandbits(31) or 1) as (drawn, _):
            yield drawn

    def _paced(self, request: dict[str, Any]) -> tuple[float, float]:
        """Seconds of all of a batch but its calls, and of those of the reference."""
        whole = float(self.ask_judge({"op": "refer", **request})["seconds"])
        found = self.ask_judge({"op": "pace", **request})
        return float(found["seconds"]), whole - float(found["own"])

    def settle(self, cell: Cell) -> None:
        """Find out how long the device has to be busy while the host starts all calls."""
        self._batch(cell, self.sets_in(cell), self.warm_seconds)  # with which memory for all outputs is taken
        cell.passes = passes_for(self.launching, self.passing)

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        drawn = self.hand_inputs(cell, sets, _LOTS.getrandbits(31) or 1)
        request = self._request(cell.passes or PASSES[0], sets)
        if cell.paced is None:  # it is called, and not measured: nobody knows yet what outputs look like
            self.ask_judge({"op": "refer"})
        with self.judge_memory({"op": "room"}) as (room, memory):
            self.ask({"op": "outputs", **room, "keys": request["keys"]}, memory, FETCH_WALL, cell.name)
        call = {"op": "call", "problem": cell.problem, "key": drawn["key"]}
        self.ask({"op": "wake"}, (), FETCH_WALL, cell.name)  # as the judge does
        self.rest(cell.name)
        told = {name: request[name] for name in ("sweeps", "audit")}
        whole, _ = self._stopped(call | told, seconds, cell.name)
        fetching, answer = self._stopped({"op": "fetch"}, FETCH_WALL, cell.name)
        if self.judge_on(cell, request):
            words = f"{cell.name}: what empties the caches before its calls was left out"
            self.observe("pads_skipped", "structural", "its calls meet warm caches", [words])
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        span, self.launching = _told(answer, cell)
        return self._timed(cell, sets, whole, fetching, span)

    def _timed(self, cell: Cell, sets: int, whole: float, fetching: float, span: float) -> Timed:
        paced = cell.paced or Pace(PASSES[0], 0.0, LEAST, 0.0)
        pads = paced.pads + self.passing[cell.passes or PASSES[0]] - self.passing[paced.passes]
        called = whole - self.overhead - pads
        beside = max(fetching - self.overhead - HANDLING * paced.copying * sets - self.put_off, 0.0)
        solution = max((called + beside) / sets, LEAST)
        parts = {"whole": whole, "pads": pads, "span": span, "fetching": fetching, "copying": paced.copying * sets}
        return Timed(solution, paced.reference, max(called, LEAST), beside, (span / sets,), parts)

    def _request(self, passes: int, sets: int) -> dict[str, Any]:
        """Keys of so many passes, and the number of the call whose outputs are copied right behind it."""
        keys = [_LOTS.getrandbits(31) for _ in range(passes)]
        return {"keys": keys, "sweeps": SWEEPS, "audit": _LOTS.randrange(sets)}

    def rest(self, what: str) -> float:
        return self._stopped({"op": "rest"}, FETCH_WALL, what)[0]

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
