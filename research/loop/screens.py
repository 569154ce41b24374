"""What a project's screening preset foretells of its own, read from rows: for evidence, pages and the summary."""

from __future__ import annotations

from django.db.models import QuerySet

from research.loop.floors import screening
from research.models import Experiment, Idea, Project, Verdict
from research.validation.fidelity import FIRST_PAIRS, Point, relate, target_of
from research.validation.records import Evidence, Relation, Rule, Screening, Stage

SCREENS = (Stage.SCREEN, Stage.EXTEND)


def screening_of(project: Project, with_relation: bool = True) -> Screening | None:
    """For evidence: what screens, its noise, what it foretells. None where the project's own preset screens."""
    if not project.screen_preset:
        return None
    floor = screening(project, project.screen_preset)
    relation = relation_of(project) if with_relation else None
    return Screening(project.screen_preset, floor.record() if floor else None, relation)


def relation_of(project: Project) -> Relation | None:
    """Over the techniques measured so far; None below the least number of them."""
    rule, own = Rule.from_json(project.rule), screening(project, project.preset)
    noise = own.record() if own else None
    level = noise.level if noise and noise.level else 1.0
    return relate(points_of(project), target_of(noise.on_scale(rule, level), rule) if noise else None)


def points_of(project: Project) -> list[Point]:
    """One for each technique with gains at both presets, oldest first; of one tried again, the newest counts."""
    if not project.screen_preset:
        return []
    rule = Rule.from_json(project.rule)
    beside = {
        experiment.key: experiment
        for experiment in project.experiments.filter(purpose=Experiment.Purpose.FIDELITY, state="ended")
    }
    found: dict[str, Point] = {}
    for verdict in screened(project):
        evidence, label = Evidence.from_json(verdict.evidence), label_of(verdict)
        short, own = evidence.gains(rule, *SCREENS), evidence.gains(rule, Stage.CONFIRM)[:FIRST_PAIRS]
        passed = len(own) == FIRST_PAIRS
        measured = beside.get(key_of(verdict.experiment))
        if measured and not passed:
            own = tuple(rule.direction.gain(*map(rule.scale.place, scores)) for scores in measured.scores())
        if short and own and (measured or passed):
            found.pop(label, None)
            found[label] = Point(label, _mean(short), _mean(own), len(short), len(own), passed)
    return list(found.values())


def key_of(experiment: Experiment) -> str:
    return f"fidelity-{experiment.public_id}"


def screened(project: Project) -> QuerySet[Verdict]:
    """Verdicts of techniques and of code of a researcher's own; combinations are no techniques."""
    rows = Verdict.objects.filter(experiment__project=project, experiment__candidate__isnull=False)
    rows = rows.exclude(experiment__candidate__idea__kind=Idea.Kind.COMBINATION).exclude(kind="invalid")
    return rows.select_related("experiment__candidate__idea", "experiment__project").order_by("pk")


def label_of(verdict: Verdict) -> str:
    candidate = verdict.experiment.candidate
    assert candidate is not None  # by the filter
    return "+".join(candidate.idea.techniques)


def _mean(gains: tuple[float, ...]) -> float:
    return sum(gains) / len(gains)
