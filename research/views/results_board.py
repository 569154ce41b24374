"""Quality against training time, and what a screening preset foretells, for the page of what gains are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from django.utils.safestring import SafeString, mark_safe

from research.drawing.quality import At, Both, Leap, Quality, both, quality
from research.loop.parts import split_of
from research.loop.screens import points_of, relation_of
from research.loop.transfer import Transferred, how_much_sooner, over_time, transferred
from research.models import Experiment, Project
from research.validation.fidelity import Point
from research.validation.records import LEAST_TECHNIQUES, Relation
from research.validation.sooner import AtBudget, Sooner
from research.validation.split import Split


def quality_drawing(rows: Mapping[str, Sequence[AtBudget]], found: Sequence[tuple[str, Sooner]], unit: str) -> str:
    """All commits by budget, and for each that is faster than the start how much sooner it has the start's scores."""
    lines = [
        Quality(name, tuple(At(row.seconds, row.mean, len(row.scores), row.half) for row in mine))
        for name, mine in rows.items()
    ]
    leaps = [
        Leap(
            row.target,
            row.reference,
            row.seconds,
            f"{'≥ ' if row.at_least else ''}{row.factor:.3g} × sooner{row.between}",
        )
        for _, row in found
        if row.seconds is not None and row.factor is not None and row.factor > 1
    ]
    return quality(lines, unit, leaps)


class ResultsBoard:
    """The parts of one project's page. Everything is looked up when a template asks."""

    least = LEAST_TECHNIQUES

    def __init__(self, project: Project) -> None:
        self.project, self.metric = project, project.contract.metric

    # Two presets

    @cached_property
    def points(self) -> list[Point]:
        return points_of(self.project)

    @cached_property
    def relation(self) -> Relation | None:
        return relation_of(self.project)

    @property
    def stopped(self) -> int:
        """Of the points, those that screening had stopped."""
        return sum(not point.was_confirmed for point in self.points)

    @property
    def fidelity_svg(self) -> SafeString:
        dots = [Both(point.label, point.screened, point.confirmed) for point in self.points]
        drawn = both(dots, self.project.screen_preset, self.project.preset, self.metric.unit)
        return mark_safe(drawn)  # noqa: S308  it escapes

    # Quality against time

    @cached_property
    def over_time(self) -> dict[str, list[AtBudget]]:
        return over_time(self.project)

    @property
    def quality_svg(self) -> SafeString:
        drawn = quality_drawing(self.over_time, self.sooner, self.metric.unit)
        return mark_safe(drawn)  # noqa: S308  it escapes

    @cached_property
    def sooner(self) -> list[tuple[str, Sooner]]:
        return [(name, row) for name, rows in how_much_sooner(self.project).items() for row in rows]

    @cached_property
    def transfers(self) -> list[tuple[Transferred, Split | None]]:
        """The newest first, each with its gain taken apart where both arms logged their loss."""
        return [(row, split_of(row.experiment)) for row in transferred(self.project)[::-1]]

    @property
    def measuring(self) -> int:
        asked = (Experiment.Purpose.TRANSFER, Experiment.Purpose.RIVAL)
        return self.project.experiments.running().filter(purpose__in=asked).count()
