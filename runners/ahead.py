"""Compiling ahead: commits that are about to be measured warm up side by side, while no clock runs.

On a GPU a new commit compiles for longer than it trains, mostly on one core. Warm-ups of several commits together take
hardly longer than one. They are never beside a timed trial: a warm-up also trains a few steps.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.contract import Assignment, Evaluator
from runners.sandbox import Sandbox, SandboxBroken

log = logging.getLogger("lab.ahead")

MOST = max(4, min(8, (os.cpu_count() or 1) // 2))  # warm-ups at a time, however small
ROOM = 0.95  # of a device's memory, for all of them
SPARE = 1.25  # what a candidate may hold more than the trials before it
JUDGED = 10 << 30  # of it, for the process that scores a trial and for the judge that asks it
USUAL_SHARE = 0.3  # of the memory, that a trial holds, until one has told

Kind = tuple[str, str, tuple[str, ...]]  # commit, preset, problems
StartBox = Callable[[int], Sandbox]


def room(total: int, held_bytes: float) -> int:
    """How many trials a device of `total` bytes has room for at a time, by what one held; 0 where none has told.

    1 without a device.
    """
    return int(ROOM * total / (SPARE * (held_bytes or USUAL_SHARE * total))) if total else 1


def fits_beside_judging(total: int, held_bytes: float) -> bool:
    """Whether a trial that holds as much as the ones before may warm up while another one, trained, is judged."""
    return bool(held_bytes) and SPARE * held_bytes + JUDGED <= ROOM * total


class Ahead:
    """Sandboxes beside that of a slot. `start`: makes the one with a number, counted from 0."""

    def __init__(self, start: StartBox) -> None:
        self._start = start
        self._boxes: dict[int, Sandbox] = {}
        self._owed: dict[str, float] = {}  # seconds that the warm-up of a commit took, until a trial tells of them
        self._in_vain: set[Kind] = set()  # what left no cache leaves none the next time
        self._closed = False
        self._changing = threading.RLock()  # re-entrant: a second signal may interrupt the handler of the first

    def prepare(
        self, evaluator: Evaluator, box: Sandbox, wanted: Sequence[Assignment], later: Sequence[Assignment],
        held_bytes: float, await_idle: Callable[[], None] = lambda: None,
    ) -> int:  # fmt: skip
        """Warm up the commits of `wanted` that have no cache, and of `later` while there is room. How many were.

        `box`: the slot's own sandbox, idle now. `held_bytes`: of the device, by a trial like these; 0 where none ran.
        Nothing where one alone is to be warmed up: it does so in its own trial. A failure is left to the trial to tell.
        `await_idle` is called where there is something to do: the device is to be empty when it returns.
        """
        tasks = {_kind(task): task for task in wanted}
        cold = [task for task in tasks.values() if self._is_cold(evaluator, task, box)]
        if starts := {_kind(task) for task in cold if task.origin and task.commit == task.origin[0]}:
            # It runs alone first: what descends from it begins with its cache, if it leaves one.
            self._in_vain |= starts
            return 0
        if not cold:
            return 0
        total = evaluator.device_memory(cold[0], box)
        most = min(MOST, room(total, held_bytes))
        for task in later:
            if len(cold) < most and _kind(task) not in tasks and self._is_cold(evaluator, task, box):
                cold.append(task)
            tasks[_kind(task)] = task
        cold = cold[:most]
        if len(cold) < 2 or self._closed:
            return 0
        await_idle()
        began = time.monotonic()
        with ThreadPoolExecutor(len(cold), thread_name_prefix="ahead") as pool:
            done = list(pool.map(lambda place: self._one(evaluator, place), enumerate(cold)))
        share = (time.monotonic() - began) / len(cold)
        for task in cold:
            self._owed[task.commit] = self._owed.get(task.commit, 0.0) + share
        self._in_vain |= {_kind(task) for task, left in zip(cold, done, strict=True) if not left}
        log.info("%d of %d commits compiled ahead in %.0f s", sum(done), len(cold), share * len(cold))
        return sum(done)

    def settle(self, commit: str) -> float:
        """Seconds of the device that a commit's warm-up took beside others and no trial has told of yet."""
        return self._owed.pop(commit, 0.0)

    def _is_cold(self, evaluator: Evaluator, task: Assignment, box: Sandbox) -> bool:
        return _kind(task) not in self._in_vain and not evaluator.is_prepared(task, box)

    def _one(self, evaluator: Evaluator, place: tuple[int, Assignment]) -> bool:
        number, task = place
        try:
            return evaluator.prepare(task, self._box(number))
        except SandboxBroken as broken:
            log.warning("compiling ahead: %s", broken)
            with self._changing:
                box = self._boxes.pop(number, None)
            if box is not None:
                box.close()
            return False

    def _box(self, number: int) -> Sandbox:
        """Raises SandboxBroken where it was closed meanwhile: what is started then ends, too."""
        if (held := self._boxes.get(number)) is not None:
            return held
        box = self._start(number)
        with self._changing:
            if not self._closed:
                self._boxes[number] = box
                return box
        box.close()
        raise SandboxBroken("compiling ahead was ended")

    def close(self) -> None:
        """From any thread."""
        with self._changing:
            self._closed = True
            boxes, self._boxes = list(self._boxes.values()), {}
        with ExitStack() as stack:
            for box in boxes:
                stack.callback(box.close)


def _kind(task: Assignment) -> Kind:
    return task.commit, task.preset.name, task.problems
