"""A launch under a stopwatch, for devices that keep no account of who used them: docs/decisions/0027.

    B = overhead + pads               + copy     the candidate's process with nothing to call, before the import
    W = overhead + pads + sets * call + copy     the same with its solution; both by the worker's stopwatch
    E =                   sets * call            events of the candidate's process, around its calls

W - B is out of the candidate's reach and blurred, E is sharp and nobody vouches for it. So E counts as long as the
stopwatch bears it out, and W - B less its blur where that is more: who forges events gains BLUR a batch at most.
References are timed by events in the judge's own process. All but W and E is measured before a line of the candidate
was imported: a process that shares the device could hold up the judge, or be slow where nothing is called.

The stopwatch runs from a ring of the bell to its answer (`inside/bell.py`): both processes watch for it, none is woken
up. Who is held up by something else is late, never early, so of batches alike the shortest counts.

All calls of a batch are given to the device while it is busy with pads, which also empty its caches; every call has
inputs of its own, which nobody has read since. They are sealed until then, and the key comes with the ring that starts
the clock: nothing can be worked out ahead. The outputs of the call whose number the worker drew are copied behind it
and judged as they were then: what is put off, or done for many calls together, comes too late for it.
"""

from __future__ import annotations

import gc
import math
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.contract import TrialFailed
from benchmarks.kernels.inside.bell import KEY_BITS, Bell, page
from benchmarks.kernels.launch import AWAKE_AFTER, FETCH_WALL, SURELY, Cell, Launch, Timed
from benchmarks.kernels.pace import Pace, Taken

ROUNDS = 1 << 8  # of watching, before it is asked whether the candidate lives
LISTENING = 3e-4  # seconds that who was told of an order needs until it watches for it
BLUR = 1.5e-4  # seconds by which W - B of a batch may be longer than its calls: nine of ten lay within 0.1 ms
APART = 0.25  # of its calls, by which a batch takes longer than its events say where these are not to be believed
ENOUGH = 6e-3  # seconds of a batch's calls
OF_MEMORY = 16  # parts of the device's memory, of which a batch takes one at most
MOST_LAUNCHING = 1.2e-2  # seconds that the host may take to start a batch's calls
SLOW_LAUNCH = 6e-5  # seconds that the host is given to start a call, at least
AHEAD = 1.3  # times as long as the host takes to start all calls does the device need for the pads
SWEEPS = 2  # passes over pads, which empty the caches
PASSES = (3, 6, 12, 24, 48, 96, 192, 384)  # over the pads: what the host needs, rounded up to one of these
LEAST = 1e-7  # seconds: nothing is faster than a launch
_LOTS = random.SystemRandom()


class StopwatchLaunch(Launch):
    rounds, most_sets, most_bytes, put_off = 3, 48, 4 << 30, 3e-4
    launching = 0.0  # seconds that the host took to start the calls of the last batch
    orders = 0  # given so far
    room = most_bytes  # of a batch, on this device

    def get_ready(self) -> None:
        descriptor = page()
        try:
            self.bell = Bell(descriptor)
            self.ask({"op": "listen"}, (descriptor,), FETCH_WALL, "the sandbox")
        finally:
            os.close(descriptor)
        with self.judge_memory({"op": "pads", "passes": PASSES}) as (pads, memory):
            self.ask({"op": "pads", "size": pads["size"]}, memory, FETCH_WALL, "the sandbox")
        self.passing = dict(zip(PASSES, map(float, pads["seconds"]), strict=True))  # seconds of so many passes
        if pads["memory"]:
            self.room = min(self.most_bytes, pads["memory"] // OF_MEMORY)
        for _ in range(AWAKE_AFTER):
            self._rest("the sandbox")

    def pace(self, cell: Cell) -> None:
        """The reference, and batches without their calls, each as it will be with them."""
        with self.drawn_inputs(cell, 1, "once", self._key()) as (drawn, _):
            request = self._request(PASSES[0], 1)
            self.ask_judge({"op": "refer", **request})  # what it compiles is not in the next
            referred = self.ask_judge({"op": "refer", **request})
            cell.bytes = drawn["stride"] + referred["stride"]
            cell.once = 2 * float(referred["span"])  # of the solution nothing is known yet
            cell.launch = float(referred["launched"])
        cell.sets = sets = self.sets_in(cell)
        passes = passes_for(sets * max(cell.launch, SLOW_LAUNCH), self.passing)
        for number in range(2):  # the first takes the memory that the second finds
            drawn = self.hand_inputs(cell, sets, self._key(), f"apart {number}")
            request = self._request(passes, sets)
            spans = [float(self.ask_judge({"op": "refer", **request})["span"]) for _ in range(self.rounds)]
            without, _ = self._exchange({}, drawn["key"], request, FETCH_WALL, cell.name)
            self.ask_judge({"op": "passed", **request})
            self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        cell.paced = Pace(passes, without, max(min(spans) / sets, LEAST))

    def sets_in(self, cell: Cell) -> int:
        """More of short ones: what a batch takes by chance is shared by its calls."""
        if cell.sets:
            return cell.sets
        by_time = min(self.share, ENOUGH) / max(cell.once, LEAST)
        by_launch, by_memory = MOST_LAUNCHING / max(cell.launch, LEAST), self.room // max(cell.bytes, 1)
        return int(max(1, min(self.most_sets, by_time, by_launch, by_memory)))

    def latency_of(self, cell: Cell) -> float:
        told, seen = min(cell.spans) * cell.sets, min(cell.called) + min(cell.beside)
        if seen - told > SURELY * BLUR + APART * told:
            words = f"{cell.name}: {1e3 * seen:.2f} ms by the stopwatch, {1e3 * told:.2f} by its own events"
            self.observe("clocks_apart", "structural", "its events tell of less than it takes", [words])
        return counted(told, seen) / cell.sets

    def settle(self, cell: Cell) -> None:
        """Find out how long the device has to be busy while the host starts all calls."""
        self._batch(cell, self.sets_in(cell), self.warm_seconds)  # with which memory for all outputs is taken
        least = cell.paced.passes if cell.paced else PASSES[0]
        cell.passes = max(least, passes_for(self.launching, self.passing))

    def time_batch(self, cell: Cell, sets: int, seconds: float) -> Timed:
        drawn = self.hand_inputs(cell, sets, self._key(), str(cell.batches))
        request = self._request(cell.passes or PASSES[0], sets)
        if cell.paced is None:  # it is called, and not measured: nobody knows yet what outputs look like
            self.ask_judge({"op": "refer"})
        call = {"problem": cell.problem}
        taken, answer = self._exchange(call, drawn["key"], request, seconds, cell.name)
        if self.judge_on(cell, request):
            words = f"{cell.name}: what empties the caches before its calls was left out"
            self.observe("pads_skipped", "structural", "its calls meet warm caches", [words])
        self.ask({"op": "drop"}, (), FETCH_WALL, cell.name)
        span, self.launching = _told(answer, cell)
        return self._timed(cell, sets, taken, span)

    def _exchange(
        self, call: dict[str, Any], sealed_by: int, request: dict[str, Any], seconds: float, what: str
    ) -> tuple[Taken, dict[str, Any]]:
        """What a batch took, and what the candidate tells of it.

        `sealed_by`: the key of the inputs, 0 where they are not sealed. The keys of the passes always are.
        """
        key = sealed_by or self._key()
        keys = [each ^ key for each in request["keys"]]
        with self.judge_memory({"op": "room"}) as (room, memory):
            self.ask({"op": "outputs", **room, "keys": keys}, memory, FETCH_WALL, what)
        self.ask({"op": "wake"}, (), FETCH_WALL, what)  # as the judge does
        self._rest(what)
        told = {name: request[name] for name in ("sweeps", "audit")} | {"sealed": bool(sealed_by)}
        first = self._prepared({**call, **told, "orders": ["call", "fetch"]}, what)
        with uncollected():
            began = time.perf_counter()
            whole = self._rung(first, key, began, seconds, what)
            fetching = self._rung(first + 1, key, began + whole, FETCH_WALL, what)
            answer = self.ask({"op": "tell"}, (), FETCH_WALL, what)
            telling = time.perf_counter() - began - whole - fetching
        return Taken(whole, fetching, telling), answer

    def _rest(self, what: str) -> None:
        number = self._prepared({"orders": ["rest"]}, what)
        self._rung(number, 1, time.perf_counter(), FETCH_WALL, what)

    def _prepared(self, message: dict[str, Any], what: str) -> int:
        """Tell the candidate of the next orders, and wait until it watches for them; the number of the first."""
        first = self.orders + 1
        self.orders += len(message["orders"])
        self.ask({"op": "orders", **message, "first": first}, (), FETCH_WALL, what)
        heard = time.perf_counter() + LISTENING
        while time.perf_counter() < heard:
            pass
        self.channel.setblocking(False)
        return first

    def _rung(self, order: int, key: int, began: float, seconds: float, what: str) -> float:
        """Give an order, and the seconds since `began` until it is done.

        Raises TrialFailed where that takes longer than `seconds`, or the candidate ends.
        """
        self.bell.ring(order, key)
        while not self.bell.answered(order, ROUNDS):
            if time.perf_counter() - began > seconds:
                raise TrialFailed("timeout", f"{what}: its calls did not end within {seconds:.0f} s")
            if self._hung_up():
                raise TrialFailed("crash", f"{what}: it ended in 'call'")
        return time.perf_counter() - began

    def _hung_up(self) -> bool:
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _timed(self, cell: Cell, sets: int, taken: Taken, span: float) -> Timed:
        paced = cell.paced or Pace(PASSES[0], Taken(0.0, 0.0, 0.0), LEAST)
        without = paced.without.whole + self.passing[cell.passes or PASSES[0]] - self.passing[paced.passes]
        called, beside = max(taken.whole - without, LEAST), taken.beside(paced.without)
        parts = vars(taken) | {"without": without, "span": span, "handing": paced.without.fetching}
        return Timed(counted(span, called + beside) / sets, paced.reference, called, beside, (span / sets,), parts)

    @staticmethod
    def _key() -> int:
        return _LOTS.getrandbits(KEY_BITS) or 1

    def _request(self, passes: int, sets: int) -> dict[str, Any]:
        """Keys of so many passes, and the number of the call whose outputs are copied right behind it."""
        keys = [_LOTS.getrandbits(31) for _ in range(passes)]
        return {"keys": keys, "sweeps": SWEEPS, "audit": _LOTS.randrange(sets), "sets": sets}


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing of this process is collected meanwhile: that would be timed."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def counted(told: float, seen: float) -> float:
    """Seconds of a batch's calls, of those its own events tell and a stopwatch saw."""
    return max(told, seen - BLUR, LEAST)


def passes_for(launching: float, passing: Mapping[int, float]) -> int:
    """Over the pads, so that they take longer than the host needs to start all calls, and the caches are empty then.

    `passing`: the seconds of so many passes.
    """
    needed = SWEEPS * passing[PASSES[-1]] / PASSES[-1] + AHEAD * launching
    return next((count for count in PASSES if passing[count] > needed), PASSES[-1])


def _told(answer: dict[str, Any], cell: Cell) -> tuple[float, float]:
    """What the candidate says: seconds of all calls by its own events, and of its host to start them.

    Nothing is gained by a wrong word on its host: its device is busy for too short or too long. Raises TrialFailed for
    no such words.
    """
    span, launched = answer.get("span"), answer.get("launched")
    if not (isinstance(span, float) and isinstance(launched, float) and math.isfinite(span + launched)):
        raise TrialFailed("bad_output", f"{cell.name}: somebody else answered 'tell'")
    return span, max(launched, 0.0)
