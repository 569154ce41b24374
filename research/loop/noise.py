"""The noise floor: A/A trials of the start on this class of machine, gathered while screening begins, then reused."""

from __future__ import annotations

from django.db import transaction

from research.loop.memory import noise_floor
from research.models import Event, Experiment, NoiseFloor, Project, Result, Trial


def step(project: Project) -> bool:
    """Begin the floor's trials, or store the floor once they are complete. True where rows changed."""
    if not project.start_commit:  # its repository is being made
        return False
    experiment = Experiment.objects.filter(key=key_of(project)).first()
    if experiment is None:
        return noise_floor(project) is None and begin(project)
    if experiment.state != Experiment.State.RUNNING or not experiment.is_idle():
        return False
    missing = project.sizes.noise_pairs - len(_pairs(experiment))
    if missing > 0:  # pairs that failed are made up for, within reason
        total = experiment.trials.values("pair").distinct().count()
        if total >= 3 * project.sizes.noise_pairs:
            project.pause(f"the noise floor could not be measured: {total - len(_pairs(experiment))} A/A pairs failed; "
                          "look at their logs, then resume")  # fmt: skip
            return True
        return experiment.plan("noise", total + missing) > 0
    return store(experiment)


def key_of(project: Project) -> str:
    return f"noise-{project.public_id}"


def begin(project: Project) -> bool:
    """Plan the A/A pairs: both arms are the start."""
    stored = NoiseFloor.objects.filter(**project.noise_key)
    if stored.exists() and not Result.objects.filter(trial__project=project).exists():
        return False  # the first result tells the machine class; a stored floor may fit it
    pairs = project.sizes.noise_pairs
    with transaction.atomic():
        experiment, new = Experiment.objects.get_or_create(
            key=key_of(project),
            defaults={
                "project": project, "purpose": Experiment.Purpose.NOISE, "rule": project.rule,
                "number": project.next_experiment_number(), "baseline_commit": project.start_commit,
                "candidate_commit": project.start_commit,
            },
        )  # fmt: skip
        experiment.plan("noise", pairs)
        if new:
            words = f"measuring noise: {pairs} pairs of the start against itself"
            Event.record(Event.Kind.NOISE, words, experiment=experiment)
    return new


def store(experiment: Experiment) -> bool:
    from research.validation.floor import noise_floor  # numpy, not for every importer

    project, pairs = experiment.project, _pairs(experiment)
    floor = noise_floor(pairs)
    latest = Result.objects.filter(trial__experiment=experiment).latest("pk")
    with transaction.atomic():
        if not experiment.end():
            return False
        NoiseFloor.objects.update_or_create(
            machine_class=latest.machine_class, **project.noise_key,
            defaults=vars(floor),
        )  # fmt: skip
        metric, level = project.contract.metric, sum(a + b for a, b in pairs) / (2 * len(pairs))
        share = f" ({floor.sigma_pair / level:.2%})".replace("%", " %") if level else ""
        words = f"noise measured: two trials of the same code differ by {floor.sigma_pair:.2g} {metric.unit}{share}"
        Event.record(Event.Kind.NOISE, words, experiment=experiment)
    return True


def progress(project: Project) -> tuple[int, int]:
    """A/A trials done, and wanted."""
    floor = noise_floor(project)
    wanted = 2 * project.sizes.noise_pairs
    if floor:
        return floor.trials, wanted
    done = Trial.objects.filter(experiment__key=key_of(project), result__score__isnull=False).count()
    return done, wanted


def _pairs(experiment: Experiment) -> list[tuple[float, float]]:
    """(baseline, candidate) scores of the complete pairs, in order."""
    scores: dict[int, dict[str, float]] = {}
    for trial in experiment.trials.filter(result__score__isnull=False).select_related("result").order_by("pair"):
        scores.setdefault(trial.pair, {})[trial.arm] = trial.result.value
    return [(arms[Trial.Arm.BASELINE], arms[Trial.Arm.CANDIDATE]) for arms in scores.values() if len(arms) == 2]
