"""What is measured once `main` has moved: the new champion against itself, and now and then against the start.

The first keeps an eye on noise and drift, with as many pairs as the preset says; the second on promises: do the gains
that were merged add up to what the champion gained? Neither changes a verdict.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from research.loop.beside import begin, bring_to, calibration_of
from research.loop.floors import noise_floor
from research.loop.problems import differing, spread
from research.models import Event, Experiment, MergeRequest, Project
from research.validation.rules import Rule, Stage

AUDIT_PAIRS = 6


def step(project: Project) -> bool:
    """True where rows changed."""
    if not project.start_commit:
        return False
    return any([end_baselines(project), end_audits(project), begin_baseline(project), begin_audit(project)])


def begin_baseline(project: Project) -> bool:
    """A/A pairs of a champion that has none. One that `main` left before they began is let go."""
    if not project.is_running or project.champion == project.start_commit or not project.sizes.champion_pairs:
        return False
    key = f"baseline-{project.public_id}-{project.champion[:16]}"
    if Experiment.objects.filter(key=key).exists():
        return False
    for old in project.experiments.running().filter(purpose=Experiment.Purpose.BASELINE):
        old.cancel()
    label, main = "the new champion against itself", project.champion
    problems = spread(project, differing(project, project.start_commit, main))  # one after another, as for a floor
    fresh = begin(project, key, Experiment.Purpose.BASELINE, label, main, main, problems=problems)
    return bring_to(fresh, "noise", project.sizes.champion_pairs)


def end_baselines(project: Project) -> bool:
    running = project.experiments.running().filter(purpose=Experiment.Purpose.BASELINE)
    pairs = project.sizes.champion_pairs
    return any([_end(each, "noise", pairs, Event.Kind.NOISE, said_of_noise) for each in running])


def end_audits(project: Project) -> bool:
    running = project.experiments.running().filter(purpose=Experiment.Purpose.AUDIT)
    return any([_end(each, str(Stage.CONFIRM), AUDIT_PAIRS, Event.Kind.PROMISE, said_of_promise) for each in running])


def _end(experiment: Experiment, stage: str, pairs: int, kind: str, said: Callable[[Experiment], str]) -> bool:
    """Bring it to its pairs; what it came to is told in the transaction that ends it."""
    with transaction.atomic():
        changed = bring_to(experiment, stage, pairs)
        experiment.refresh_from_db(fields=["state"])
        if changed and experiment.state == Experiment.State.ENDED:
            Event.record(kind, said(experiment), experiment=experiment)
    return changed


def said_of_noise(experiment: Experiment) -> str:
    """Pool the champion's own pairs into the floor of the machines that measured them; both as one line of the feed."""
    pairs, unit = experiment.scores(), experiment.project.contract.metric.unit
    if not pairs:
        return "the new champion could not be measured against itself; look at the logs"
    spread = (sum((one - other) ** 2 for one, other in pairs) / len(pairs)) ** 0.5
    words = f"the new champion against itself over {len(pairs)} pairs: they differ by {spread:.2g} {unit}"
    floor = noise_floor(experiment.project)
    if floor is None:
        return words
    before = floor.sigma_pair
    if experiment.problems:  # pairs of different problems have no common level: each counts at the floor's
        pairs = [_at_level(pair, floor.level or 1.0) for pair in pairs]
    floor.refresh(pairs, Rule.from_json(experiment.project.rule).scale)
    drift = f"drift {floor.drift:+.1f} sigma" + (", more than noise makes" if floor.record().drifts else "")
    return f"{words} (the floor: {before:.2g}, now {floor.sigma_pair:.2g}); {drift}"


def _at_level(pair: tuple[float, float], level: float) -> tuple[float, float]:
    """Two scores above 0 with the same ratio, around a level."""
    one, other = pair
    middle = (one * other) ** 0.5
    return level * one / middle, level * other / middle


def begin_audit(project: Project) -> bool:
    """Champion against start, once for every `audit_every` merges that `main` stands on."""
    if not project.is_running or not project.audit_every:
        return False
    line = MergeRequest.objects.line(project)
    due = len(line) // project.audit_every
    if not due:
        return False
    places = {request.commit: place for place, request in enumerate(line, start=1)}
    audits = project.experiments.filter(purpose=Experiment.Purpose.AUDIT).exclude(state=Experiment.State.CANCELLED)
    audited = audits.values_list("candidate_commit", flat=True)
    if due in {places.get(commit, 0) // project.audit_every for commit in audited}:
        return False
    key = f"audit-{project.public_id}-{project.champion[:16]}"
    label = f"the champion after {len(line)} merges against the start"
    audit = begin(project, key, Experiment.Purpose.AUDIT, label, project.start_commit, project.champion)
    return bring_to(audit, str(Stage.CONFIRM), AUDIT_PAIRS)


def said_of_promise(audit: Experiment) -> str:
    """Promise and outcome as one line of the feed."""
    point, unit = calibration_of(audit), audit.project.contract.metric.unit
    real = point.realised
    if real.effect is None:
        return f"after {point.merges} merges the champion could not be measured against the start; look at the logs"
    between = f" ({real.low:.3g} to {real.high:.3g})" if real.low is not None and real.high is not None else ""
    kept = {0: "the promise holds", 1: "more than was promised", -1: "less than was promised"}[point.sign]
    return (
        f"after {point.merges} merges: promised {point.promised:.3g} {unit}, "
        f"gained {real.effect:.3g}{between} over {real.pairs} pairs: {kept}"
    )
