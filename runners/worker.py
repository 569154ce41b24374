"""The machine worker: claims pairs of trials by lease, executes each arm on its slot, reports. Knows no benchmark."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from benchmarks.contract import Failure, Observation, Outcome
from runners.lab import Lab, Work
from runners.points import PointBuffer, PointsError
from runners.sandbox import Isolation, Sandbox, SandboxBroken
from runners.slot import Slot

log = logging.getLogger("lab.worker")

HEARTBEAT_SECONDS = 4.0  # a lease lasts 15
IDLE_SECONDS = 1.0  # how long to wait for a ring before looking anyway
GATE_SECONDS = 60.0
DRAIN_SECONDS = 30.0  # for the last points of a trial to reach the table


def _meet(gate: threading.Barrier | None) -> None:
    """Both arms of a pair start their clocks together; the other arm's failure does not hold this one up."""
    if gate is not None:
        with contextlib.suppress(threading.BrokenBarrierError):
            gate.wait(GATE_SECONDS)


def _execute(slot: Slot, work: Work, points: PointBuffer, gate: threading.Barrier | None) -> Outcome:
    try:
        return slot.execute(work, points, partial(_meet, gate))
    finally:
        if gate is not None:
            gate.abort()  # whoever still waits for this arm goes on alone


class Worker:
    def __init__(self, lab: Lab, slots: Sequence[Slot]) -> None:
        self.lab, self.slots = lab, list(slots)
        self.wake = threading.Event()
        self.stopping = threading.Event()
        self.points = PointBuffer(lab.store, retry=lab.store_errors, farewell=lab.hang_up)
        self._pool = ThreadPoolExecutor(len(self.slots))  # kept: its threads keep their database connections
        self._held: dict[int, Work] = {}  # by the key of its lease
        self._running: dict[int, Slot] = {}  # where those of them are that have begun and are not reported yet
        self._lost: set[int] = set()  # leases whose trials are to end without a result

    def measure_isolation(self) -> Isolation:
        """Attack a sandbox like the ones trials get, and report the level to the lab."""
        slot = self.slots[0]
        with Sandbox.start(slot.index, inside=Path(__file__).parent, **slot.options) as box:
            isolation = box.isolation
        rows = [{"name": row.name, "passed": row.passed, "detail": row.detail} for row in isolation.rows]
        self.lab.report_isolation(isolation.level, rows)
        return isolation

    def warm(self, benchmark: str) -> None:
        """Start every slot's sandbox before the first trial asks for it: importing torch takes seconds."""
        for _ in self._pool.map(lambda slot: slot.prepare(benchmark), self.slots):
            pass

    def run(self) -> None:
        """Work until `stop`. The outer loop: nothing a trial does may end it."""
        self.lab.take_over()
        heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            while not self.stopping.is_set():
                self.wake.clear()
                try:
                    if not self.run_pair():
                        self.wake.wait(IDLE_SECONDS)
                except Exception:  # noqa: BLE001  one of the two places where anything may be caught
                    log.exception("a pair failed on this machine; its trials are given back")
                    self._give_back_all("the worker failed; see its log")
                    self.stopping.wait(IDLE_SECONDS)
        finally:
            self._give_back_all("the worker stopped")
            self.points.close()
            self.close()

    def run_pair(self) -> bool:
        """Execute the next pair, if one waits."""
        works = self.lab.claim()
        if not works:
            return False
        self._hold(works)
        if len(works) == 2 and works[0].side_by_side and len(self.slots) > 1:
            gate = threading.Barrier(len(works))
            arms = [self._pool.submit(self._run, work, gate) for work in works]
            wait(arms)  # a failure of one arm must not leave the other running on its slot
            for arm in arms:
                arm.result()
        else:
            for work in works:
                if not self.lab.share(work):
                    self._run(work, None)
                self._let_go(work)
        self._held.clear()
        return True

    def _hold(self, works: Sequence[Work]) -> None:
        self._held.update({work.lease.pk: work for work in works})

    def _let_go(self, work: Work) -> None:
        """Its lease is closed, not lost."""
        self._held.pop(work.lease.pk, None)

    def _run(self, work: Work, gate: threading.Barrier | None) -> None:
        slot = self.slots[work.trial.slot % len(self.slots)]
        if outcome := self._outcome(work, slot, lambda: _execute(slot, work, self.points, gate)):
            self._report(work, outcome)

    def _outcome(self, work: Work, slot: Slot, execute: Callable[[], Outcome]) -> Outcome | None:
        """What a trial came to on a slot; None where it came to nothing and was given back."""
        self._running[work.lease.pk] = slot
        try:
            outcome = execute()
        except SandboxBroken as broken:
            if self._is_dropped(work):
                self.lab.give_back(work, "the worker stopped")
                return None
            if work.lease.generation < 2:  # once it may be the machine; twice it is the candidate
                self.lab.give_back(work, str(broken))
                return None
            outcome = Outcome(failure=Failure("crash", f"the sandbox broke: {broken}"))
        finally:
            self._running.pop(work.lease.pk, None)
        if self._is_dropped(work):
            self.lab.give_back(work, "the worker stopped")
            return None
        return outcome

    def _is_dropped(self, work: Work) -> bool:
        return self.stopping.is_set() or work.lease.pk in self._lost

    def _report(self, work: Work, outcome: Outcome) -> None:
        try:
            tally = self.points.drain(work.trial.pk, DRAIN_SECONDS)
        except PointsError as error:
            self.lab.give_back(work, str(error))
            return
        if tally.dropped:
            words = f"{tally.dropped} points beyond the limit of a trial were dropped"
            outcome.observations.append(Observation("points_dropped", "info", words))
        self.lab.finish(work, outcome)

    def stop(self) -> None:
        """Stop soon: running trials are killed and given back."""
        self.stopping.set()
        self.wake.set()
        for slot in self.slots:
            slot.stop()

    def close(self) -> None:
        for slot in self.slots:
            slot.close()

    def _beat(self) -> None:
        while not self.stopping.wait(HEARTBEAT_SECONDS):
            try:
                lost = self.lab.beat([work.lease for work in list(self._held.values())])
            except self.lab.store_errors as error:  # a full disk, a database that restarts: the next beat may pass
                log.warning("no heartbeat: %s", error)
                continue
            for lease in lost:
                if lease.pk not in self._held:
                    continue  # it was closed meanwhile
                self._lost.add(lease.pk)
                log.warning("lease %s was lost; its trial is stopped", lease)
                if slot := self._running.get(lease.pk):
                    slot.close()

    def _give_back_all(self, why: str) -> None:
        """What cannot be given back now (a full disk) comes back when its lease expires."""
        with contextlib.suppress(*self.lab.store_errors):
            for work in list(self._held.values()):
                self.lab.give_back(work, why)
        self._held.clear()
