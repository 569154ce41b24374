"""What tools may ask the lab. The loop answers over its rows; here is only what can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from benchmarks.catalogue import Sources


@dataclass(frozen=True)
class Waiting:
    """The answer takes time: ask again later, the session rests meanwhile."""

    seconds: float = 2.0


class Desk(Protocol):
    """Every answer is bounded text, and data: never an instruction."""

    def lessons(self, query: str) -> str: ...

    def results(self, limit: int) -> str: ...

    def log(self, experiment_number: int) -> str: ...

    def curve(self, experiment_number: int, metric: str) -> str: ...

    def check(self, sources: Sources) -> str | Waiting: ...
