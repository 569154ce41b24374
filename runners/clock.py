"""The parent's clock: how much of its budget a sandboxed step has used, in seconds the candidate cannot bend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class CountsCpu(Protocol):
    def cpu_seconds(self) -> float: ...


@dataclass
class BudgetClock:
    """Counts CPU seconds of the whole sandbox ("cpu") or wall seconds ("wall"); wall time is capped in both cases."""

    box: CountsCpu
    kind: str
    budget: float
    wall_cap: float

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._wall = time.monotonic()
        self._cpu = self.box.cpu_seconds()

    @property
    def wall(self) -> float:
        return time.monotonic() - self._wall

    @property
    def cpu(self) -> float:
        return self.box.cpu_seconds() - self._cpu

    @property
    def used(self) -> float:
        return self.cpu if self.kind == "cpu" else self.wall

    @property
    def expired(self) -> bool:
        return self.used > self.budget or self.wall > self.wall_cap
