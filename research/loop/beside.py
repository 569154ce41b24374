"""Experiments without a verdict, measured beside the search: begun once, brought to their pairs, read. Used by steps.

Parts of a combination, a new champion against itself and against the start, the champion without one of its changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import QuerySet

from research.loop.problems import differing
from research.models import Candidate, Experiment, MergeRequest, Project, Trial, Verdict
from research.validation.combine import Calibration, Interaction, interaction, measured
from research.validation.rules import Rule, Stage

BROKEN_SHARE = 0.5  # of the pairs that may be lost to machines and made up for


def begin(
    project: Project, key: str, purpose: str, label: str, baseline: str, candidate: str, split: str = "",
    problems: Sequence[str] = (),
) -> Experiment:  # fmt: skip
    """The experiment of this key; made where it is not there. Its trials are planned by `bring_to`.

    `split`: the part of the validation text that scores it, where it is not the next one's turn. `problems`: what it
    measures of many, where that is not what the two commits differ in.
    """
    measured = list(problems) or differing(project, baseline, candidate)
    with transaction.atomic():
        found = Experiment.objects.filter(key=key).first()
        return found or Experiment.objects.create(
            key=key, project=project, purpose=purpose, label=label[:160], number=project.next_experiment_number(),
            baseline_commit=baseline, candidate_commit=candidate, rule=project.rule, confirm_split=split,
            problems=measured,
        )  # fmt: skip


def bring_to(experiment: Experiment, stage: str, pairs: int) -> bool:
    """Plan what is missing of so many complete pairs, or end it: they are there, or too many broke.

    True where rows changed.
    """
    if experiment.state != Experiment.State.RUNNING or not experiment.is_idle():
        return False
    planned = experiment.trials.filter(arm=Trial.Arm.BASELINE).count()
    missing = pairs - len(experiment.scores())
    if missing > 0 and planned < pairs + max(1, int(BROKEN_SHARE * pairs)):
        return experiment.plan(stage, planned + missing) > 0
    return experiment.end()


def interaction_of(candidate: Candidate) -> Interaction | None:
    """A combination of threads and its parts alone; None where it has none, or an arm has no pair yet."""
    experiment = Experiment.objects.filter(candidate=candidate).first()
    alone = {part.key: part for part in Experiment.objects.filter(key__in=candidate.part_keys())}
    if experiment is None or not candidate.parts or len(alone) < len(candidate.parts):
        return None
    places = zip(candidate.parts, candidate.part_keys(), strict=True)
    parts = [(branch.label, alone[key].complete_pairs()) for branch, key in places]
    together = [pair for pair in experiment.complete_pairs() if pair.stage is Stage.CONFIRM]
    return interaction(parts, ("together", together), Rule.from_json(experiment.rule))


def interactions(project: Project) -> list[tuple[Candidate, Interaction]]:
    """Every combination of threads that has been measured beside its parts, oldest first."""
    found = combinations(project).select_related("idea").order_by("pk")
    return [(candidate, read) for candidate in found if (read := interaction_of(candidate)) is not None]


def combinations(project: Project) -> QuerySet[Candidate]:
    return Candidate.objects.filter(project=project).exclude(branches=[])


def calibration_of(audit: Experiment) -> Calibration:
    """What the merges up to the audited champion promised, and what it gained over the start."""
    line = MergeRequest.objects.line(audit.project, audit.candidate_commit)
    rule, pairs = Rule.from_json(audit.rule), audit.complete_pairs()
    promised = sum(request.verdict.shrunk or 0.0 for request in line)
    if audit.problems:  # each gained a share of what the audit measures together
        level = rule.mean_score([pair.baseline for pair in pairs]) if pairs else 1.0
        shares = (_share_promised(request.verdict, rule, audit) for request in line)
        promised = rule.in_units(sum(shares), level)
    return Calibration(len(line), promised, measured(audit.label, pairs, rule))


def _share_promised(verdict: Verdict, rule: Rule, audit: Experiment) -> float:
    """The shrunk gain of a verdict on the rule's scale, over all problems of an audit: nothing where it has none."""
    problems, baselines = verdict.experiment.problems, [pair["baseline"] for pair in verdict.evidence["pairs"]]
    if verdict.shrunk is None or not baselines:
        return 0.0
    part = len(set(problems) & set(audit.problems)) / len(audit.problems)
    return part * rule.from_units(verdict.shrunk, rule.mean_score(baselines))


def calibrations(project: Project) -> list[Calibration]:
    """Every audit of the project that has ended, oldest first."""
    audits = project.experiments.filter(purpose=Experiment.Purpose.AUDIT, state=Experiment.State.ENDED)
    return [calibration_of(audit) for audit in audits.order_by("number")]
