"""Measure what screening stopped at the project's own preset, where a person asks for it.

A candidate that screening stopped is normally never measured at the project's preset. Without some of those nobody
knows what screening misses, so a person may have a number of them measured there: on screening text, without a verdict.
"""

from __future__ import annotations

from django.db import transaction

from research.loop.beside import begin, bring_to
from research.loop.screens import SCREENS, key_of, label_of, screened
from research.models import Event, Experiment, NotMergeable, Project, Verdict
from research.models.machine import FIDELITY
from research.validation.fidelity import FIRST_PAIRS
from research.validation.records import Evidence, Rule

MEASURED_PAIRS = 2
MOST_MEASURED = 60


def step(project: Project) -> bool:
    """Go on with what a person asked for. True where rows changed."""
    running = project.experiments.running().filter(purpose=Experiment.Purpose.FIDELITY)
    return any([_go_on(experiment) for experiment in running.order_by("pk")])


def measure(project: Project, count: int, pairs: int = MEASURED_PAIRS) -> list[Experiment]:
    """Have candidates that screening stopped measured at the project's own preset, spread over their screening gains.

    Chosen by that gain alone, so the relation is not bent. Asking again asks for others. Raises NotMergeable.
    """
    if not project.screen_preset:
        raise NotMergeable(f"{project.name} screens under its own preset: there is nothing to compare")
    if not 1 <= count <= MOST_MEASURED or not 1 <= pairs <= FIRST_PAIRS:
        raise NotMergeable(f"ask for 1 to {MOST_MEASURED} candidates of 1 to {FIRST_PAIRS} pairs")
    known = set(project.experiments.filter(purpose=Experiment.Purpose.FIDELITY).values_list("key", flat=True))
    rule = Rule.from_json(project.rule)
    free: dict[str, tuple[float, Verdict]] = {}
    for verdict in screened(project).filter(stage__in=[str(stage) for stage in SCREENS]):
        gains = Evidence.from_json(verdict.evidence).gains(rule, *SCREENS)
        if gains and key_of(verdict.experiment) not in known:
            free[label_of(verdict)] = sum(gains) / len(gains), verdict
    ranked = [verdict for _, verdict in sorted(free.values(), key=lambda one: one[0])]
    wanted = min(count, len(ranked))
    places = [round(place * (len(ranked) - 1) / max(1, wanted - 1)) for place in range(wanted)]
    return [_begin(verdict.experiment, pairs) for verdict in (ranked[place] for place in places)]


def _begin(stopped: Experiment, pairs: int) -> Experiment:
    label = f"stopped by screening: {stopped.candidate.idea.name}" if stopped.candidate else ""
    with transaction.atomic():
        experiment = begin(
            stopped.project, key_of(stopped), Experiment.Purpose.FIDELITY, label, stopped.baseline_commit,
            stopped.candidate_commit,
        )  # fmt: skip
        Experiment.objects.filter(pk=experiment.pk).update(wanted_pairs=pairs)
        experiment.refresh_from_db(fields=["wanted_pairs"])
        bring_to(experiment, FIDELITY, pairs)
    return experiment


def _go_on(experiment: Experiment) -> bool:
    with transaction.atomic():
        changed = bring_to(experiment, FIDELITY, experiment.wanted_pairs)
        experiment.refresh_from_db(fields=["state"])
        if changed and experiment.state == Experiment.State.ENDED:
            words = f"measured at {experiment.project.preset} too, {experiment.label}"
            Event.record(Event.Kind.EXPERIMENT, words, experiment=experiment)
    return changed
