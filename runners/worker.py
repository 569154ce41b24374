"""The machine worker: claims pairs of trials by lease, executes each arm on its slot, reports. Knows no benchmark."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import ModuleType

from benchmarks.contract import Assignment, Evaluator, Failure, Observation, Outcome, load
from runners.ahead import MOST, Ahead
from runners.device import SandboxOptions, sandbox_options
from runners.lab import Lab, Work
from runners.points import PointBuffer, PointsError
from runners.sandbox import Isolation, Sandbox, SandboxBroken

log = logging.getLogger("lab.worker")

HEARTBEAT_SECONDS = 4.0  # a lease lasts 15
IDLE_SECONDS = 1.0  # how long to wait for a ring before looking anyway
GATE_SECONDS = 60.0
CPU_SLOTS, FIRST_GPU_SLOT = 2, 8
FIRST_AHEAD_SLOT = 64  # of the sandboxes that compile ahead, as many as may for each GPU
DRAIN_SECONDS = 30.0  # for the last points of a trial to reach the table


class Slot:
    """One core or GPU of this machine: a sandbox and an evaluator that live for many trials.

    `index` is the slot's own among all workers of a machine: its user and its folder are called by it.
    """

    def __init__(self, index: int, cpu: int | None, gpu: int | None = None) -> None:
        self.index, self.cpu, self.gpu = index, cpu, gpu
        self._made_for = ""
        self._box: Sandbox | None = None
        self._evaluator: Evaluator | None = None
        self._ahead: Ahead | None = None
        self._closing = threading.RLock()  # re-entrant: a second signal may interrupt the handler of the first

    @property
    def options(self) -> SandboxOptions:
        """What its sandboxes are started with. Raises SandboxBroken where its GPU is gone."""
        return sandbox_options("cpu") if self.gpu is None else sandbox_options("cuda", self.gpu)

    def prepare(self, benchmark: str) -> tuple[Sandbox, ModuleType]:
        """The sandbox for this benchmark, started if it is not there yet."""
        module = load(benchmark).load_evaluator()
        if self._made_for != benchmark:
            self.close()
        if self._box is None:
            self._box = self._start(module, self.index)
            self._made_for = benchmark
        if self.cpu is not None:
            self._box.pin(self.cpu)
        self._evaluator = self._evaluator or module.Evaluator()
        return self._box, module

    def _start(self, module: ModuleType, index: int) -> Sandbox:
        return Sandbox.start(
            index, inside=module.INSIDE, preload=module.PRELOAD, setup_statement=module.SETUP, **self.options
        )

    def compile_ahead(self, wanted: Sequence[Assignment], later: Sequence[Assignment], held_bytes: float) -> None:
        """Let commits without a compile cache make theirs side by side; see `Ahead`. Raises SandboxBroken."""
        if self.gpu is None:
            return
        box, module = self.prepare(wanted[0].benchmark)
        if self._ahead is None:
            first = FIRST_AHEAD_SLOT + self.gpu * MOST
            self._ahead = Ahead(lambda number: self._start(module, first + number))
        if (evaluator := self._evaluator) is not None:
            same = [task for task in later if task.benchmark == wanted[0].benchmark]
            self._ahead.prepare(evaluator, box, wanted, same, held_bytes)

    def execute(self, work: Work, points: PointBuffer, gate: threading.Barrier | None) -> Outcome:
        """Run one trial; a broken sandbox is thrown away and reported by SandboxBroken."""
        try:
            box, _ = self.prepare(work.task.benchmark)
            if (evaluator := self._evaluator) is None:
                raise SandboxBroken("the slot was closed")
            sink = partial(points.add, work.trial.pk, work.lease.generation)
            outcome = evaluator.run(work.task, box, sink, gate=partial(_meet, gate), cpu=self.cpu)
            if self._ahead is not None and (seconds := self._ahead.settle(work.task.commit)):
                outcome.seconds["compiled_ahead"] = seconds
                outcome.seconds["total_wall"] = outcome.seconds.get("total_wall", 0.0) + seconds
        except SandboxBroken:
            self.close()
            raise
        finally:
            if gate is not None:
                gate.abort()  # whoever still waits for this arm goes on alone
        return outcome

    def close(self) -> None:
        """From any thread, and from several at once: a signal, a lost heartbeat and the trial itself may end it."""
        with self._closing:
            box, evaluator, ahead = self._box, self._evaluator, self._ahead
            self._box, self._evaluator, self._ahead, self._made_for = None, None, None, ""
        if ahead is not None:
            ahead.close()
        if evaluator is not None:
            evaluator.close()
        if box is not None:
            box.close()


def _meet(gate: threading.Barrier | None) -> None:
    """Both arms of a pair start their clocks together; the other arm's failure does not hold this one up."""
    if gate is not None:
        with contextlib.suppress(threading.BrokenBarrierError):
            gate.wait(GATE_SECONDS)


class Worker:
    def __init__(self, lab: Lab, slots: Sequence[Slot]) -> None:
        self.lab, self.slots = lab, list(slots)
        self.wake = threading.Event()
        self.stopping = threading.Event()
        self.points = PointBuffer(lab.store, retry=lab.store_errors, farewell=lab.hang_up)
        self._pool = ThreadPoolExecutor(len(self.slots))  # kept: its threads keep their database connections
        self._held: list[Work] = []
        self._lost: set[int] = set()

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
        self._held = works
        self._compile_ahead(works)
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
        self._held = []
        return True

    def _compile_ahead(self, works: Sequence[Work]) -> None:
        slot = self.slots[works[0].trial.slot % len(self.slots)]
        if slot.gpu is None:
            return
        later, held_bytes = self.lab.upcoming(works[0], 2 * MOST)
        try:
            slot.compile_ahead([work.task for work in works], later, held_bytes)
        except SandboxBroken as broken:
            log.warning("compiling ahead: %s", broken)  # the trial meets it again, and says so
            slot.close()

    def _run(self, work: Work, gate: threading.Barrier | None) -> None:
        slot = self.slots[work.trial.slot % len(self.slots)]
        try:
            outcome = slot.execute(work, self.points, gate)
        except SandboxBroken as broken:
            if self.stopping.is_set() or work.lease.pk in self._lost:
                self.lab.give_back(work, "the worker stopped")
                return
            outcome = Outcome(failure=Failure("crash", f"the sandbox broke: {broken}"))
            if work.lease.generation < 2:  # once it may be the machine; twice it is the candidate
                self.lab.give_back(work, str(broken))
                return
        if self.stopping.is_set():
            self.lab.give_back(work, "the worker stopped")
            return
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
            slot.close()

    def close(self) -> None:
        for slot in self.slots:
            slot.close()

    def _beat(self) -> None:
        while not self.stopping.wait(HEARTBEAT_SECONDS):
            try:
                lost = self.lab.beat([work.lease for work in self._held])
            except self.lab.store_errors as error:  # a full disk, a database that restarts: the next beat may pass
                log.warning("no heartbeat: %s", error)
                continue
            for lease in lost:
                self._lost.add(lease.pk)
                log.warning("lease %s was lost; its trial is stopped", lease)
                for work in self._held:
                    if work.lease.pk == lease.pk:
                        self.slots[work.trial.slot % len(self.slots)].close()

    def _give_back_all(self, why: str) -> None:
        """What cannot be given back now (a full disk) comes back when its lease expires."""
        with contextlib.suppress(*self.lab.store_errors):
            for work in self._held:
                self.lab.give_back(work, why)
        self._held = []


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def cpu_slots() -> list[Slot]:
    """A slot for each of at most two cores: both arms of a pair run at the same time."""
    return [Slot(index, cpu) for index, cpu in enumerate(cores()[:CPU_SLOTS])]


def gpu_slot(number: int) -> Slot:
    """The slot of one GPU. No core is its own: beside the GPU there is a judge, a loader, a compiler."""
    return Slot(FIRST_GPU_SLOT + number, None, number)
