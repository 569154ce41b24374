"""LessonRecord: one lesson as a line of a file, to take from one lab to another. What is read is checked and bounded.

A lesson that comes from elsewhere is the word of a stranger: marked, with half of its confidence, and it refuses
nothing, unless whoever imports it takes dead ends and discards over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from django.db import transaction
from django.utils.dateparse import parse_datetime

from research.models.event import Event
from research.models.lesson import LONGEST_ABOUT, Lesson
from research.models.project import Project
from research.validation.lessons import IMPORTED, Assumption

FORMAT = 1
LONGEST_LINE = 64_000  # characters
LENGTHS = {
    "origin": 60, "imported_from": 120, "kind": 12, "title": 160, "text": 4_000, "about": LONGEST_ABOUT, "base": 40,
    "benchmark": 40, "preset": 40, "machine_class": 120, "created": 40, "reopened_why": 300,
}  # fmt: skip
MOST_ITEMS, LONGEST_ITEM = 60, 200


class LessonFileError(Exception):
    """A line that is no lesson. One line, with its number where that is known."""


@dataclass(frozen=True)
class LessonRecord:
    """The fields of a lesson that mean something elsewhere. `origin`: the same one is never taken in twice."""

    origin: str
    imported_from: str  # the project it was learned in
    kind: str
    title: str
    text: str
    about: str
    techniques: list[dict[str, Any]]
    tags: list[str]
    files: list[str]
    recipe: list[str]
    benchmark: str
    preset: str
    base: str
    machine_class: str
    effect: float | None
    error: float | None
    pairs: int
    confidence: float
    assumption: dict[str, Any]
    reopened_why: str
    created: str
    format: int = FORMAT

    @classmethod
    def of(cls, lesson: Lesson) -> Self:
        """What was imported keeps where it came from first, so a lesson that travels in a circle is known again."""
        plain = {name: getattr(lesson, name) for name in _names() - {"origin", "imported_from", "created", "format"}}
        return cls(
            origin=lesson.origin or f"{lesson.project.public_id}/{lesson.pk}",
            imported_from=lesson.imported_from or lesson.project.name, created=lesson.created.isoformat(), **plain,
        )  # fmt: skip

    def line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> Self:
        """Raises LessonFileError where a field is unknown, missing, of another type or too long."""
        if len(line) > LONGEST_LINE:
            raise LessonFileError(f"a line is longer than {LONGEST_LINE} characters")
        try:
            read = json.loads(line)
        except ValueError as error:
            raise LessonFileError(f"it is not JSON: {error}") from error
        if not isinstance(read, dict) or set(read) != _names():
            raise LessonFileError(f"it must be an object with just these fields: {', '.join(sorted(_names()))}")
        if read["format"] != FORMAT:
            raise LessonFileError(f"it is of format {read['format']!r}; this lab reads {FORMAT}")
        _check(read)
        if not _is_storable(read):
            raise LessonFileError("it holds characters that no database takes")
        return cls(**read)

    def take_in(self, project: Project, binding: bool = False) -> bool:
        """Make it a lesson of a project; False where it was there already. `binding`: let it refuse proposals too.

        Raises LessonFileError where it is of another benchmark.
        """
        if self.benchmark != project.benchmark:
            raise LessonFileError(f"it is of benchmark {self.benchmark!r}; {project} is on {project.benchmark!r}")
        if self.origin.startswith(f"{project.public_id}/"):
            return False  # it came from here
        same = {name: getattr(self, name) for name in _names() - {"origin", "confidence", "created", "format"}}
        certain = binding and self.kind == Lesson.Kind.REJECTED
        confidence = self.confidence if certain else IMPORTED * self.confidence
        with transaction.atomic():
            _, new = Lesson.objects.get_or_create(
                project=project, origin=self.origin,
                defaults={**same, "confidence": confidence, "binding": binding, "created": _moment(self.created)},
            )  # fmt: skip
        return new


def take_in_all(project: Project, records: list[LessonRecord], binding: bool = False) -> int:
    """All of a file or none of it. Returns how many are new; the feed says it."""
    with transaction.atomic():
        new = sum(record.take_in(project, binding) for record in records)
        if new:
            sources = ", ".join(sorted({record.imported_from for record in records}))[:200]
            words = f"{new} lesson{'' if new == 1 else 's'} imported from {sources}"
            Event.record(Event.Kind.LESSON, words, project=project)
    return new


def _names() -> set[str]:
    return {field.name for field in fields(LessonRecord)}


def _check(read: Mapping[str, Any]) -> None:
    for name, longest in LENGTHS.items():
        value = read[name]
        if not isinstance(value, str) or len(value) > longest:
            raise LessonFileError(f"{name} must be text of at most {longest} characters")
    if not read["origin"] or not read["text"] or read["kind"] not in Lesson.Kind.values:
        raise LessonFileError(f"it needs origin, text, and a kind out of {', '.join(Lesson.Kind.values)}")
    moment = _moment(read["created"])
    if moment is None or moment.tzinfo is None:
        raise LessonFileError("created must be a moment with its time zone")
    for name in ("tags", "files", "recipe"):
        if not _is_list_of(read[name], lambda item: isinstance(item, str) and len(item) <= LONGEST_ITEM):
            raise LessonFileError(f"{name} must be a list of at most {MOST_ITEMS} short texts")
    if not _is_list_of(read["techniques"], _is_step):
        raise LessonFileError('techniques must be a list of {"technique": name, "tunables": {name: value}}')
    _check_numbers(read)
    try:
        if read["assumption"]:
            Assumption.from_json(read["assumption"])
    except (ValueError, TypeError) as error:
        raise LessonFileError(f"assumption: {error}") from error


def _check_numbers(read: Mapping[str, Any]) -> None:
    for name in ("effect", "error"):
        value = read[name]
        if value is not None and not _is_number(value):
            raise LessonFileError(f"{name} must be a finite number or null")
    if not _is_number(read["confidence"]) or not 0 <= read["confidence"] <= 1:
        raise LessonFileError("confidence must be between 0 and 1")
    if type(read["pairs"]) is not int or not 0 <= read["pairs"] < 2**31:
        raise LessonFileError("pairs must be a whole number")
    if not isinstance(read["assumption"], dict):
        raise LessonFileError("assumption must be an object")


def _is_storable(read: Mapping[str, Any]) -> bool:
    """Without the character 0 and lone surrogates, wherever they hide."""
    plain = json.dumps(read)
    return "\\u0000" not in plain and not re.search(r"[\ud800-\udfff]", json.dumps(read, ensure_ascii=False))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of(value: object, fits: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_ITEMS and all(fits(item) for item in value)


def _is_step(item: object) -> bool:
    if not isinstance(item, dict) or set(item) != {"technique", "tunables"}:
        return False
    name, tunables = item["technique"], item["tunables"]
    plain = isinstance(tunables, dict) and all(
        _is_number(value) or isinstance(value, str) for value in tunables.values()
    )
    return isinstance(name, str) and 0 < len(name) <= LONGEST_ITEM and plain


def _moment(text: str) -> Any:
    try:
        return parse_datetime(text)
    except ValueError:
        return None
