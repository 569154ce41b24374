"""What the red team must know of a benchmark: its exploits and guards, and how a candidate of it is played."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.catalogue import Sources
from benchmarks.contract import Assignment, Outcome, PointSink, Preset
from benchmarks.exploit import Exploit, Margin
from runners.sandbox import Sandbox


class Evaluator(Protocol):
    def run(self, task: Assignment, box: Sandbox, sink: PointSink, *, cpu: int | None = None) -> Outcome: ...

    def close(self) -> None: ...


class OpenEvaluator(Evaluator, Protocol):
    """One that does without the guards that an assignment names."""

    cache: bytes  # what a step left for the next one, where no guard empties the cache


@dataclass(frozen=True)
class Candidate:
    """An honest one: the techniques in it, its tree, the tree that they change, and what its trial measures."""

    recipe: tuple[str, ...]
    files: Sources
    start: Sources
    problems: tuple[str, ...] = ()


class Lane(Protocol):
    benchmark: str
    guards: Mapping[str, str]  # name: what it holds
    tree_guards: frozenset[str]  # of these: what is checked before anything runs
    box_guards: frozenset[str]  # and what a sandbox is started without
    margin: Margin
    looked_at: frozenset[str]  # kinds of findings that an honest candidate may have, too
    problems: tuple[str, ...]  # that a trial of an exploit measures

    def exploits(self) -> dict[str, Exploit]: ...

    def plain(self) -> Sources:
        """The tree that honest twins are made of."""
        ...

    def prepared(self, preset: Preset) -> Path:
        """The data, made now where there are none."""
        ...

    def facts(self, data: Path, preset: Preset) -> AbstractContextManager[dict[str, str]]:
        """What an attacker may know of the host, by the names that exploits call it."""
        ...

    def evaluator(self) -> Evaluator: ...

    def open_evaluator(self) -> OpenEvaluator: ...

    def sandbox(self, slot: int, removed: frozenset[str], data: Path) -> AbstractContextManager[Sandbox]: ...

    def honest(self, data: Path, preset: Preset, count: int) -> list[Candidate]: ...


def filled(text: str, facts: Mapping[str, Any]) -> str:
    for name, value in facts.items():
        text = text.replace(f"@{name}@", value)
    return text
