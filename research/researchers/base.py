"""What every researcher is given and what it answers. Plain records: a researcher sees no row and writes no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from benchmarks.catalogue import Catalogue, Sources, Step, Technique, allows


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
    replaced: Step | None = None  # of a retune: the setting that it was measured against


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
    again: frozenset[str] = frozenset()  # techniques to try once more, with other settings


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
    sent_back: Sequence[tuple[Step, ...]] = ()  # changes that a person wanted different: never again just so
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)  # what steering calls each technique
    problems: Mapping[str, frozenset[str]] = field(default_factory=dict)  # technique -> of many, those that it changes
    room: Mapping[str, float] = field(default_factory=dict)  # technique -> the most that it can gain here
    discards: Sequence[tuple[Step, ...]] = ()  # settled against, and what that assumed holds for this head

    def allows(self, technique: Technique) -> bool:
        """Whether steering allows it, and no person has rejected it."""
        labels = self.labels.get(technique.name, frozenset({technique.name, technique.family}))
        return technique.name not in self.dead_ends and allows(labels, self.directives.focus, self.directives.forbid)

    def meet(self, one: str, other: str) -> bool:
        """Whether two techniques can bear on each other: not where they change different problems of many."""
        mine, theirs = (self.problems.get(name, frozenset()) for name in (one, other))
        return not (mine and theirs) or bool(mine & theirs)

    @property
    def dead_ends(self) -> frozenset[str]:
        """Techniques that a person rejected, whatever their settings; until the lesson is retracted."""
        rejected = [lesson for lesson in self.lessons if lesson.kind == "rejected"]
        return frozenset(step.technique for lesson in rejected for step in lesson.steps)


@dataclass(frozen=True)
class Draft:
    """A proposal: one change worth testing."""

    kind: str  # Idea.Kind
    hypothesis: str
    expected_effect: float
    steps: tuple[Step, ...]
    tags: tuple[str, ...]
    cost_guess: float  # device-seconds until a verdict
    title: str = ""  # what is changed, in a few words
    files: tuple[str, ...] = ()  # paths that it changes


class NothingToPropose(Exception):
    """The researcher has no idea left that steering and memory allow. The text says why."""


class Researcher(Protocol):
    """Who proposes for a thread. Ideas come in one of three ways, and the loop tells them apart by this alone:

    it is a Proposer          it answers at once, in the control worker
    holds_sessions            a model is asked, in sessions that a process of their own carries on
    neither                   nobody is asked: what comes is submitted from outside
    """

    @property
    def name(self) -> str: ...

    @property
    def ships_code(self) -> bool:
        """All that it writes is code of the lab's own catalogue: confirmed at any isolation level."""
        ...

    @property
    def holds_sessions(self) -> bool: ...


@runtime_checkable
class Proposer(Researcher, Protocol):
    """A researcher that answers at once."""

    def propose(self, view: View) -> Draft: ...

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        """The changed sources and the new recipe. Raises DoesNotApply."""
        ...


@dataclass(frozen=True)
class Guest:
    """A researcher whose ideas are made elsewhere; its code never ships with the lab."""

    name: str
    holds_sessions: bool = False
    ships_code: bool = False
