"""What a project's screening preset foretells of its own, read from rows, and what follows from it.

Until enough techniques are measured at both, the shorter preset screens. Where it is then not shown to foretell, new
candidates are screened at the project's own, and what the shorter one stopped counts as not tried: docs/VALIDATION.md.
"""

from __future__ import annotations

from django.db.models import Q, QuerySet

from research.loop.floors import screening
from research.models import Experiment, Idea, Project, Verdict
from research.validation.fidelity import FIRST_PAIRS, Point, relate, target_of
from research.validation.records import Evidence, Relation, Rule, Screening, Stage, VerdictKind

SCREENS = (Stage.SCREEN, Stage.EXTEND)
KEY = "fidelity-"  # of an experiment that measures a stopped one at the project's preset


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


def screens_at(project: Project) -> str:
    """The preset under which a new candidate is screened, where that is not the project's screening preset."""
    return project.preset if _is_blind(project) else ""


def blind_stops(project: Project) -> frozenset[int]:
    """Experiments that a preset stopped which is not shown to foretell anything: nothing was learned from them."""
    if not _is_blind(project):
        return frozenset()
    stopped = screened(project).filter(kind=str(VerdictKind.INCONCLUSIVE), stage__in=[str(stage) for stage in SCREENS])
    return frozenset(stopped.order_by().values_list("experiment", flat=True))


def _is_blind(project: Project) -> bool:
    relation = relation_of(project) if project.screen_preset else None
    return relation is not None and not relation.is_shown


def points_of(project: Project) -> list[Point]:
    """One for each technique with gains at both presets, oldest first; of one tried again, the newest counts."""
    if not project.screen_preset:
        return []
    rule = Rule.from_json(project.rule)
    beside = {
        experiment.key.removeprefix(KEY): experiment
        for experiment in project.experiments.filter(purpose=Experiment.Purpose.FIDELITY, state="ended")
    }
    at_both = Q(stage=str(Stage.CONFIRM)) | Q(experiment__public_id__in=beside)
    found: dict[str, Point] = {}
    for verdict in screened(project).filter(at_both):
        evidence, label = Evidence.from_json(verdict.evidence), label_of(verdict)
        short, own = evidence.gains(rule, *SCREENS), evidence.gains(rule, Stage.CONFIRM)[:FIRST_PAIRS]
        passed = len(own) == FIRST_PAIRS
        measured = beside.get(verdict.experiment.public_id)
        if measured and not passed:
            own = tuple(rule.direction.gain(*map(rule.scale.place, scores)) for scores in measured.scores())
        if short and own and (measured or passed):
            found.pop(label, None)
            found[label] = Point(label, _mean(short), _mean(own), len(short), len(own), passed)
    return list(found.values())


def key_of(experiment: Experiment) -> str:
    return f"{KEY}{experiment.public_id}"


def screened(project: Project) -> QuerySet[Verdict]:
    """Verdicts of techniques and of code of a researcher's own, screened at the shorter preset.

    Combinations are no techniques.
    """
    rows = Verdict.objects.filter(experiment__project=project, experiment__candidate__isnull=False)
    rows = rows.filter(experiment__preset="")
    rows = rows.exclude(experiment__candidate__idea__kind=Idea.Kind.COMBINATION).exclude(kind="invalid")
    return rows.select_related("experiment__candidate__idea", "experiment__project").order_by("pk")


def label_of(verdict: Verdict) -> str:
    candidate = verdict.experiment.candidate
    assert candidate is not None  # by the filter
    return "+".join(candidate.idea.techniques)


def _mean(gains: tuple[float, ...]) -> float:
    return sum(gains) / len(gains)
