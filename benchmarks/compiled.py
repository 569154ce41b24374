"""Which compile cache a trial starts with, and which one its code keeps. Reading, storing: runners/cache.py.

A commit without a snapshot begins with that of the start it descends from: most of its kernels are the same, and a
kernel is found by its source. The start is nobody's candidate. What descends from it gets nothing from anybody else.
"""

from __future__ import annotations

import hashlib

from benchmarks.contract import Assignment, Observation, Outcome
from runners import cache, device
from runners.sandbox import Sandbox

NOT_INHERITED = "aotautograd"  # its keys do not tell functions apart that a candidate writes the gradient of itself


class CompileCache:
    """The cache of one trial: the commit's snapshot where there is one, else what stands at the start of the clock."""

    def __init__(self, task: Assignment, outcome: Outcome, code: str = "") -> None:
        """`code`: names all code that can run in the trial; without it the whole commit does."""
        self._outcome = outcome
        self._store = cache.Store(task.caches) if task.caches else None
        self._key = _key(task, outcome, code)
        self.content = self._store.get(self._key) if self._store else b""
        self.was_there = bool(self.content)
        if self._store and task.origin and not self.was_there:
            of_start = self._store.get(_key(task, outcome, "", task.origin))
            self.content = cache.without(of_start, NOT_INHERITED)
        self._note()

    @staticmethod
    def exists(task: Assignment, outcome: Outcome, code: str = "") -> bool:
        """Whether the commit has a snapshot already."""
        return task.caches is not None and cache.Store(task.caches).holds(_key(task, outcome, code))

    def freeze(self, box: Sandbox) -> None:
        """At the start of the clock, before any data is sent: from here on nothing that is written stays."""
        if self.was_there:
            return
        try:
            self.content = box.read_cache()
        except cache.CacheTooLarge as refused:
            words = f"{refused}, so nothing of it is kept"
            self._outcome.observations.append(Observation("cache_dropped", "info", words))
        if self._store:
            self._store.keep(self._key, self.content)
        self._note()

    def _note(self) -> None:
        self._outcome.hashes["cache"] = hashlib.sha256(self.content).hexdigest() if self.content else "empty"


def _key(task: Assignment, outcome: Outcome, code: str, of: tuple[str, str] | None = None) -> str:
    """The name of a snapshot; `of`: that of another commit, by itself and the hash of its tree."""
    machine = outcome.surroundings.get("gpu") or device.processor()
    environment = outcome.hashes["environment"]
    preset = task.preset  # not its name: a screen's cache serves the longer trials of the same sizes
    shapes = f"{preset.device} {preset.vocabulary} {preset.sequence_length}"
    parts = (code,) if code else of or (task.commit, outcome.hashes["tree"])
    return cache.key(*parts, environment, shapes, machine)
