"""What gains are worth, drawn: combinations beside their parts, a champion without each change, promises kept.

The numbers are the records of `research.validation.combine`; nothing here is part of a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.db.models import Avg
from django.utils.safestring import SafeString, mark_safe

from research.drawing.calibration import Promise, calibration
from research.drawing.forest import Bar, forest
from research.loop import beside
from research.loop.memory import recipe_of
from research.models import Ablation, AblationPart, Candidate, Experiment, Membership, Project, Result, Role
from research.validation.combine import AblationRow, Calibration, Interaction, Measured
from research.validation.records import Rule

INTERACTIONS = {1: "they help each other", -1: "they get in each other's way", 0: "no interaction is shown"}
DEFAULT_PAIRS = 6  # of the champion with and without each change
LOSSES = {1: "worth something", -1: "does harm", 0: "not shown either way"}


@dataclass(frozen=True)
class Together:
    """A combination beside its parts."""

    candidate: Candidate
    found: Interaction
    unit: str

    @property
    def experiment(self) -> Experiment | None:
        return getattr(self.candidate, "experiment", None)

    @property
    def words(self) -> str:
        return INTERACTIONS[self.found.sign]

    @property
    def svg(self) -> SafeString:
        return interaction_svg(self.found, self.unit)


@dataclass(frozen=True)
class Without:
    """One change of a champion: what the champion loses without it."""

    part: AblationPart
    row: AblationRow
    wanted: int

    @property
    def is_over(self) -> bool:
        experiment = self.part.experiment
        return bool(self.row.refusal) or (experiment is not None and experiment.state != Experiment.State.RUNNING)

    @property
    def words(self) -> str:
        if self.row.refusal:
            return self.row.refusal
        return LOSSES[self.row.sign] if self.row.loss.pairs else "not measured yet"


def interaction_svg(found: Interaction, unit: str) -> SafeString:
    """Bars of the parts, their sum, the combination, and what it has beyond the sum."""
    bars = [_bar(part, "part") for part in found.parts]
    bars.append(Bar("the parts added up", found.expected, kind="expected"))
    bars.append(_bar(found.together, "sum"))
    bars.append(Bar("beyond the sum", found.surplus, found.low, found.high))
    drawn = forest(bars, unit, f"a combination beside its parts, {found.together.pairs} pairs each")
    return mark_safe(drawn)  # noqa: S308  it escapes


def calibration_svg(rows: Sequence[Calibration], unit: str) -> SafeString:
    promises = [
        Promise(row.merges, row.promised, row.realised.effect, row.realised.low, row.realised.high, row.sign)
        for row in rows
    ]
    return mark_safe(calibration(promises, unit))  # noqa: S308  it escapes


def _bar(found: Measured, kind: str = "", note: str = "") -> Bar:
    return Bar(found.label, found.effect, found.low, found.high, kind, note)


class WorthBoard:
    """The parts of one project's page. Everything is looked up when a template asks."""

    pairs = DEFAULT_PAIRS

    def __init__(self, project: Project, user: AbstractUser) -> None:
        self.project, self.user = project, user
        self.metric = project.contract.metric

    # Promises

    @cached_property
    def calibrations(self) -> list[Calibration]:
        return beside.calibrations(self.project)

    @property
    def calibration_svg(self) -> SafeString:
        return calibration_svg(self.calibrations, self.metric.unit)

    @cached_property
    def auditing(self) -> Experiment | None:
        return self.project.experiments.running().filter(purpose=Experiment.Purpose.AUDIT).first()

    # Combinations

    @cached_property
    def together(self) -> list[Together]:
        found = beside.interactions(self.project)[::-1]
        return [Together(candidate, read, self.metric.unit) for candidate, read in found]

    # Ablation

    @cached_property
    def ablations(self) -> list[Ablation]:
        return list(self.project.ablations.select_related("asked_by").order_by("-pk")[:10])

    @property
    def ablation(self) -> Ablation | None:
        """The newest one."""
        return self.ablations[0] if self.ablations else None

    @cached_property
    def without(self) -> list[Without]:
        """The most valuable change first; what is not measured yet comes last."""
        if self.ablation is None:
            return []
        rule, wanted = Rule.from_json(self.project.rule), self.ablation.pairs
        parts = self.ablation.parts.select_related("experiment").order_by("number")
        rows = [Without(part, part.row(rule), wanted) for part in parts]
        return sorted(rows, key=lambda row: (row.row.loss.effect is None, -(row.row.loss.effect or 0.0)))

    @property
    def ablation_svg(self) -> SafeString:
        bars = [_bar(row.row.loss, note=row.words) for row in self.without if not row.row.refusal]
        drawn = forest(bars, self.metric.unit, "what the champion loses without each change")
        return mark_safe(drawn)  # noqa: S308  it escapes

    @property
    def done(self) -> int:
        return sum(row.is_over for row in self.without)

    @property
    def is_current(self) -> bool:
        return self.ablation is not None and self.ablation.champion == self.project.champion

    @property
    def changes(self) -> int:
        """How many changes the champion has that could be left out."""
        return len(recipe_of(self.project, self.project.champion))

    @property
    def may_ask(self) -> bool:
        return Membership.role_of(self.user, self.project) >= Role.MEMBER

    @property
    def can_ask(self) -> bool:
        return self.project.champion != self.project.start_commit

    @cached_property
    def pair_minutes(self) -> float | None:
        """Device minutes of one pair, from the project's trials; None before any has ended."""
        spent = Result.objects.filter(trial__project=self.project, failure="").aggregate(mean=Avg("device_seconds"))
        return 2 * spent["mean"] / 60 if spent["mean"] else None

    @property
    def minutes(self) -> str:
        """What the usual number of pairs for every change costs."""
        if self.pair_minutes is None:
            return ""
        minutes = self.changes * DEFAULT_PAIRS * self.pair_minutes
        return f"{minutes:.{1 if minutes < 10 else 0}f}"
