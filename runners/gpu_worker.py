"""The worker of one GPU: its trials take turns on two slots, so that one is judged while the next one warms up.

What may be on the device together says runners/conveyor.py; here stands what is put on it. One thread, that of `run`,
claims pairs and begins trials; each trial has a thread until it is reported.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from benchmarks.contract import Observation, Outcome
from runners.ahead import MOST, Ahead, fits_beside_judging
from runners.conveyor import Conveyor, Turn
from runners.lab import Lab, Work
from runners.sandbox import SandboxBroken
from runners.slot import Slot
from runners.worker import Worker

log = logging.getLogger("lab.worker")

FIRST_AHEAD_SLOT = 64  # of the sandboxes that compile ahead, as many as may for each GPU
NO_ROOM = "out_of_memory"  # the failure of a trial that may have had too little because of its neighbour


@dataclass(frozen=True)
class Waiting:
    """A held trial that has not begun. `alone`: again, after `spent` seconds of the device beside another trial."""

    work: Work
    alone: bool = False
    spent: float = 0.0


class GpuWorker(Worker):
    """`slots`: those of one GPU."""

    def __init__(self, lab: Lab, slots: Sequence[Slot]) -> None:
        super().__init__(lab, slots)
        self._conveyor = Conveyor(len(self.slots))
        self._waiting: deque[Waiting] = deque()
        self._trials: list[Future[None]] = []  # under way
        self._ahead: Ahead | None = None
        self._ahead_for = ""

    def run_pair(self) -> bool:
        """Begin the next trial as soon as the one before has trained. False where none waits."""
        slot = self.slots[self._conveyor.await_place()]
        self._check()
        if self.stopping.is_set():
            return False
        if not self._waiting:
            works = self.lab.claim()
            if not works:
                return False
            self._hold(works)
            self._waiting.extend(Waiting(work) for work in works)
            self._compile_ahead(works, slot)
        self._begin(self._waiting.popleft(), slot)
        return True

    def _check(self) -> None:
        """Raise what ended the thread of a trial."""
        ended = [trial for trial in self._trials if trial.done()]
        self._trials = [trial for trial in self._trials if trial not in ended]
        for trial in ended:
            trial.result()

    def _begin(self, next_one: Waiting, slot: Slot) -> None:
        work = next_one.work
        if self._is_dropped(work):
            self.lab.give_back(work, "the worker stopped")
        if self._is_dropped(work) or not next_one.alone and self.lab.share(work):
            self._let_go(work)
            return
        beside = not next_one.alone and self._has_room(work, slot)
        turn = self._conveyor.enter(beside=beside, alone=next_one.alone)
        self._trials.append(self._pool.submit(self._run_turn, next_one, turn))

    def _has_room(self, work: Work, slot: Slot) -> bool:
        """Whether a trial may warm up while another is judged: a commit that compiled, of a size that fits."""
        held_bytes = self.lab.held_bytes(work)
        if not held_bytes:
            return False
        try:
            evaluator, box = slot.evaluator(work.task.benchmark)
            fits = fits_beside_judging(evaluator.device_memory(work.task, box), held_bytes)
            compiled = work.task.caches is not None and evaluator.is_prepared(work.task, box)
        except SandboxBroken as broken:
            log.warning("looking for room: %s", broken)  # the trial meets it again, and says so
            slot.close()
            return False
        return fits and (compiled or self.lab.has_run(work))

    def _run_turn(self, begun: Waiting, turn: Turn) -> None:
        work, slot = begun.work, self.slots[turn.slot]

        def gate() -> None:
            turn.start_clock()
            if self._is_dropped(work):  # while its sandbox was started, so there was nothing to close
                raise SandboxBroken("its lease was lost")

        try:
            outcome = self._outcome(work, slot, lambda: slot.execute(work, self.points, gate, turn))
        finally:
            turn.over()
        if outcome is not None:
            self._account(outcome, work, begun, turn)
            if turn.company and outcome.failure and outcome.failure.kind == NO_ROOM:
                self._run_again(work, outcome)
            else:
                self._report(work, outcome)
        self._let_go(work)

    def _account(self, outcome: Outcome, work: Work, begun: Waiting, turn: Turn) -> None:
        """Let each second of the device be told by one trial: those shared with a neighbour by the earlier one.

        So the wall seconds of a trial begin when the one before it was judged; `overlapped` are those before that.
        """
        extra = {
            "overlapped": -turn.overlapped,
            "tried_beside": begun.spent,
            "compiled_ahead": self._ahead.settle(work.task.commit) if self._ahead else 0.0,
        }
        for name, seconds in extra.items():
            if seconds:
                outcome.seconds[name] = abs(seconds)
                outcome.seconds["total_wall"] = outcome.seconds.get("total_wall", 0.0) + seconds
        if begun.alone:
            words = "ran out of memory beside another trial, and was run again alone"
            outcome.observations.append(Observation("run_again_alone", "info", words))

    def _run_again(self, work: Work, outcome: Outcome) -> None:
        assert outcome.failure
        again = self.lab.start_over(work, f"{outcome.failure.message}, beside another trial: once more, alone")
        if again is not None:
            self._hold([again])
            self._waiting.appendleft(Waiting(again, True, outcome.seconds.get("total_wall", 0.0)))
            self.wake.set()

    def _compile_ahead(self, works: Sequence[Work], slot: Slot) -> None:
        """Let commits without a compile cache make theirs side by side, on an empty device; see `Ahead`."""
        later, held_bytes = self.lab.upcoming(works[0], 2 * MOST)
        benchmark = works[0].task.benchmark
        same = [task for task in later if task.benchmark == benchmark]
        try:
            evaluator, box = slot.evaluator(benchmark)
            ahead = self._ahead_of(benchmark, slot)
            ahead.prepare(evaluator, box, [work.task for work in works], same, held_bytes, self._conveyor.await_empty)
        except SandboxBroken as broken:
            log.warning("compiling ahead: %s", broken)  # the trial meets it again, and says so
            slot.close()

    def _ahead_of(self, benchmark: str, slot: Slot) -> Ahead:
        if self._ahead is None or self._ahead_for != benchmark:
            if self._ahead is not None:
                self._ahead.close()
            _, module = slot.prepare(benchmark)
            first = FIRST_AHEAD_SLOT + (slot.gpu or 0) * MOST
            self._ahead = Ahead(lambda number: slot.start(module, first + number))
            self._ahead_for = benchmark
        return self._ahead

    def stop(self) -> None:
        super().stop()
        self._close_ahead()

    def close(self) -> None:
        super().close()
        self._close_ahead()

    def _close_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()

    def _give_back_all(self, why: str) -> None:
        """What is under way ends first: it would be on the device beside what is begun next."""
        self._lost |= set(self._held)
        for slot in list(self._running.values()):
            slot.close()
        wait(self._trials)
        self._trials.clear()
        self._waiting.clear()
        super()._give_back_all(why)
