"""A slot of this machine: a core, or one of the two of a GPU, with what lives there for many trials."""

from __future__ import annotations

import os
import threading
from functools import partial
from types import ModuleType

from benchmarks.contract import Evaluator, Gate, Outcome, load
from runners.conveyor import SLOTS, Turn
from runners.device import SandboxOptions, sandbox_options
from runners.lab import Work
from runners.points import PointBuffer
from runners.sandbox import Sandbox, SandboxBroken

CPU_SLOTS = 2
FIRST_GPU_SLOT, MOST_GPUS = 8, 16  # of all first ones, before the second ones


class Slot:
    """A sandbox and an evaluator that live for many trials.

    `index` is the slot's own among all workers of a machine: its user and its folder are called by it.
    """

    def __init__(self, index: int, cpu: int | None, gpu: int | None = None) -> None:
        self.index, self.cpu, self.gpu = index, cpu, gpu
        self._made_for = ""
        self._box: Sandbox | None = None
        self._evaluator: Evaluator | None = None
        self._stopped = False
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
        if (box := self._box) is None:
            box = self.start(module, self.index)
            with self._closing:
                if not self._stopped:
                    self._box, self._made_for = box, benchmark
            if self._stopped:  # while it was started
                box.close()
                raise SandboxBroken("the slot was closed")
        if self.cpu is not None:
            box.pin(self.cpu)
        self._evaluator = self._evaluator or module.Evaluator()
        return box, module

    def start(self, module: ModuleType, index: int) -> Sandbox:
        """Another sandbox like its own."""
        return Sandbox.start(
            index, inside=module.INSIDE, preload=module.PRELOAD, setup_statement=module.SETUP, **self.options
        )

    def evaluator(self, benchmark: str) -> tuple[Evaluator, Sandbox]:
        """Both that a trial needs, made if they are not there yet. Raises SandboxBroken."""
        box, _ = self.prepare(benchmark)
        if (evaluator := self._evaluator) is None:
            raise SandboxBroken("the slot was closed")
        return evaluator, box

    def execute(self, work: Work, points: PointBuffer, gate: Gate, turn: Turn | None = None) -> Outcome:
        """Run one trial, on a GPU when it is its turn; a broken sandbox is thrown away and reported by SandboxBroken.

        `gate` is called when its clock may start; what it raises ends the trial.
        """
        box: Sandbox | None = None
        try:
            evaluator, box = self.evaluator(work.task.benchmark)
            sink = partial(points.add, work.trial.pk, work.lease.generation)

            def ready() -> None:
                gate()
                if self._box is not box:
                    raise SandboxBroken("the slot was closed")

            if turn is None:
                return evaluator.run(work.task, box, sink, gate=ready, cpu=self.cpu)
            beside = turn.begin()
            return evaluator.run(work.task, box, sink, gate=ready, cpu=self.cpu, trained=turn.trained, beside=beside)
        except SandboxBroken:
            self.close()
            raise
        except OSError as problem:
            if self._box is box:
                raise
            raise SandboxBroken("the slot was closed") from problem  # with a socket of its judge or sandbox in use

    def stop(self) -> None:
        """Close it for good: what is being started for it ends, too."""
        self._stopped = True
        self.close()

    def close(self) -> None:
        """From any thread, and from several at once: a signal, a lost heartbeat and the trial itself may end it."""
        with self._closing:
            box, evaluator = self._box, self._evaluator
            self._box, self._evaluator, self._made_for = None, None, ""
        if evaluator is not None:
            evaluator.close()
        if box is not None:
            box.close()


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def cpu_slots() -> list[Slot]:
    """A slot for each of at most two cores: both arms of a pair run at the same time."""
    return [Slot(index, cpu) for index, cpu in enumerate(cores()[:CPU_SLOTS])]


def gpu_slots(number: int) -> list[Slot]:
    """Those of one GPU, on which trials take turns. No core is theirs: there is a judge, a loader, a compiler."""
    return [Slot(FIRST_GPU_SLOT + place * MOST_GPUS + number, None, number) for place in range(SLOTS)]
