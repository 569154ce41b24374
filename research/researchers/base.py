"""What every researcher is given and what it answers. Plain records: a researcher sees no row and writes no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.catalogue import Catalogue, Sources, Step


@dataclass(frozen=True)
class LessonView:
    """One lesson as a researcher sees it. `effect` and `error` are relative to the baseline's score."""

    kind: str
    steps: tuple[Step, ...]
    base: str
    recipe: tuple[str, ...]  # techniques the base had
    effect: float | None
    error: float | None
    pairs: int
    text: str
    retune: bool = False


@dataclass(frozen=True)
class Attempt:
    """An idea of any thread of the project that has been tried or is being tried."""

    steps: tuple[Step, ...]
    base: str
    running: bool
    other_thread: bool
    kind: str


@dataclass(frozen=True)
class Directives:
    """A person's steering: techniques, families or files to focus on, and to leave alone."""

    focus: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """All a proposal may use."""

    head: str
    sources: Sources  # of the head
    start_sources: Sources
    recipe: tuple[Step, ...]  # from the start to the head
    catalogue: Catalogue
    lessons: Sequence[LessonView]
    attempts: Sequence[Attempt]
    sigma: float  # relative noise of one pair
    seed: int
    seconds_a_pair: float
    directives: Directives = field(default_factory=Directives)
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # technique -> thread that has it confirmed


@dataclass(frozen=True)
class Draft:
    """A proposal: one change worth testing."""

    kind: str  # Idea.Kind
    hypothesis: str
    expected_effect: float
    steps: tuple[Step, ...]
    tags: tuple[str, ...]
    cost_guess: float  # device-seconds until a verdict


class NothingToPropose(Exception):
    """The researcher has no idea left that steering and memory allow. The text says why."""


class Researcher(Protocol):
    name: str

    def propose(self, view: View) -> Draft: ...

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        """The changed sources and the new recipe. Raises DoesNotApply."""
        ...
