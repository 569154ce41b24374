"""Techniques: reusable, reviewable changes of a benchmark's tree, each with hypothesis, source and tunables.

A technique edits source text and brings its own constants, so that techniques can be stacked in any order that makes
sense; a start holds no trace of one that is not applied. `apply` returns new sources or raises `DoesNotApply`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from benchmarks.edits import DoesNotApply

Sources = dict[str, str]  # path -> text
Value = float | int | str
Tunables = Mapping[str, Value]


@dataclass(frozen=True)
class Tunable:
    """One knob. A range (log-scaled or not, whole numbers or not) or a list of choices."""

    name: str
    default: Value
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Technique:
    name: str  # snake_case, stable: lessons refer to it
    title: str
    family: str  # architecture, embedding, optimizer, schedule, data, evaluation
    hypothesis: str  # falsifiable, one sentence
    source: str  # paper or record
    apply: Callable[[Sources, Tunables], Sources]
    tunables: tuple[Tunable, ...] = ()
    prior_gain: float = 0.0  # expected relative gain in the metric, positive is better
    prior_sd: float = 0.02
    excludes: tuple[str, ...] = ()  # techniques that by nature cannot stand beside it
    requires: tuple[str, ...] = ()  # at least one of these must be in the tree; empty: none
    tuned_here: bool = False  # its defaults were tuned by hand on the evaluation text
    cost: float = 1.0  # of a trial that shows it, as a multiple of the usual one

    def defaults(self) -> dict[str, Value]:
        return {tunable.name: tunable.default for tunable in self.tunables}


@dataclass(frozen=True)
class Step:
    """One technique with its tunables fixed; a recipe is a sequence of steps."""

    technique: str
    tunables: Mapping[str, Value]

    def to_json(self) -> dict[str, object]:
        return {"technique": self.technique, "tunables": dict(self.tunables)}


CHANGE = "change-"  # begins the name of a step that is no technique: code of a researcher's own, kept by git alone


def is_change(name: str) -> bool:
    return name.startswith(CHANGE)


class Catalogue(Mapping[str, Technique]):
    """All techniques of a benchmark by name."""

    def __init__(self, techniques: Iterable[Technique]) -> None:
        self._by_name = {technique.name: technique for technique in techniques}

    def __getitem__(self, name: str) -> Technique:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def apply(self, sources: Sources, steps: Iterable[Step]) -> Sources:
        """Apply steps in order. Raises DoesNotApply, naming the step."""
        for step in steps:
            if is_change(step.technique):
                raise DoesNotApply(f"{step.technique} is code of a researcher's own, which only git can carry over")
            if step.technique not in self:
                raise DoesNotApply(f"the catalogue has no technique {step.technique}")
            try:
                sources = self[step.technique].apply(dict(sources), step.tunables)
            except DoesNotApply as error:
                raise DoesNotApply(f"{step.technique}: {error}") from error
        return sources

    def describe(self, sources: Sources) -> dict[str, dict[str, Any]]:
        """Title, family and the files of `sources` that each technique changes."""
        return {
            name: {"title": technique.title, "family": technique.family, "files": self._files(technique, sources)}
            for name, technique in self._by_name.items()
        }

    def _files(self, technique: Technique, sources: Sources) -> list[str]:
        try:
            changed = changed_files(sources, technique.apply(dict(sources), technique.defaults()))
            return [path for path in changed if path in sources]
        except DoesNotApply:
            return []

    def clash(self, name: str, recipe: Iterable[str]) -> str | None:
        """The technique of `recipe` that excludes `name`, if any."""
        for other in recipe:
            if other == name or other in self[name].excludes or (other in self and name in self[other].excludes):
                return other
        return None


def changed_files(before: Sources, after: Sources) -> list[str]:
    """Paths that differ, in order."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def allows(labels: AbstractSet[str], focus: AbstractSet[str], forbid: AbstractSet[str]) -> bool:
    """Whether steering lets a technique with these labels be proposed."""
    return not labels & forbid and (not focus or bool(labels & focus))
