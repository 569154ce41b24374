"""The noise floor: A/A trials of the start on this class of machine, gathered while screening begins, then reused."""

from __future__ import annotations

from django.db import transaction

from research.loop.memory import noise_floor
from research.loop.problems import spread
from research.models import Event, Experiment, NoiseFloor, Project, Result, Trial
from research.models.pace import pair_seconds


def step(project: Project) -> bool:
    """Begin a floor's trials, or store the floor once they are complete. True where rows changed.

    Each preset that the project measures at has its own. The one that screens comes first: its trials are shorter, and
    the first candidate meets it first.
    """
    if not project.start_commit:  # its repository is being made
        return False
    return any([_step(project, preset) for preset in project.measured_presets])


def _step(project: Project, preset: str) -> bool:
    experiment = Experiment.objects.filter(key=key_of(project, preset)).first()
    if experiment is None:
        return noise_floor(project, preset) is None and begin(project, preset)
    if experiment.state != Experiment.State.RUNNING or not experiment.is_idle():
        return False
    missing = experiment.sizes.noise_pairs - len(_pairs(experiment))
    if missing > 0:  # pairs that failed are made up for, within reason
        total = experiment.trials.values("pair").distinct().count()
        if total >= 3 * experiment.sizes.noise_pairs:
            project.pause(f"the noise floor could not be measured: {total - len(_pairs(experiment))} A/A pairs failed; "
                          "look at their logs, then resume")  # fmt: skip
            return True
        return experiment.plan("noise", total + missing) > 0
    return store(experiment)


def key_of(project: Project, preset: str = "") -> str:
    other = f"-{preset}" if preset and preset != project.preset else ""
    return f"noise-{project.public_id}{other}"


def begin(project: Project, preset: str) -> bool:
    """Plan the A/A pairs: both arms are the start."""
    stored = NoiseFloor.objects.filter(**project.noise_key_at(preset))
    if stored.exists() and not Result.objects.filter(trial__project=project).exists():
        return False  # the first result tells the machine class; a stored floor may fit it
    other = preset if preset != project.preset else ""
    pairs = project.contract.preset(preset).noise_pairs
    problems = spread(project, project.problems)
    with transaction.atomic():
        experiment, new = Experiment.objects.get_or_create(
            key=key_of(project, preset),
            defaults={
                "project": project, "purpose": Experiment.Purpose.NOISE, "rule": project.rule, "preset": other,
                "number": project.next_experiment_number(), "baseline_commit": project.start_commit,
                "candidate_commit": project.start_commit, "problems": problems,
            },
        )  # fmt: skip
        experiment.plan("noise", pairs)
        if new:
            at = f" at {other}" if other else ""
            words = f"measuring noise{at}: {pairs} pairs of the start against itself"
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
            machine_class=latest.machine_class, **project.noise_key_at(experiment.preset or project.preset),
            defaults=vars(floor),
        )  # fmt: skip
        metric, level = project.contract.metric, sum(a + b for a, b in pairs) / (2 * len(pairs))
        share = f" ({floor.sigma_pair / level:.2%})".replace("%", " %") if level else ""
        at = f" at {experiment.preset}" if experiment.preset else ""
        words = f"noise measured{at}: two trials of the same code differ by {floor.sigma_pair:.2g} {metric.unit}{share}"
        Event.record(Event.Kind.NOISE, words, experiment=experiment)
    return True


def progress(project: Project) -> tuple[int, int]:
    """A/A trials done, and wanted, over all presets that the project measures at."""
    found = [_progress(project, preset) for preset in project.measured_presets]
    return sum(done for done, _ in found), sum(wanted for _, wanted in found)


def seconds_left(project: Project) -> float:
    """About how long the A/A pairs that are missing take, one after another."""
    missing = {preset: _progress(project, preset) for preset in project.measured_presets}
    return sum(
        (wanted - done) / 2 * pair_seconds(project, preset if preset != project.preset else "")
        for preset, (done, wanted) in missing.items()
        if done < wanted
    )


def _progress(project: Project, preset: str) -> tuple[int, int]:
    floor = noise_floor(project, preset)
    wanted = 2 * project.contract.preset(preset).noise_pairs
    if floor:
        return min(floor.trials, wanted), wanted
    done = Trial.objects.filter(experiment__key=key_of(project, preset), result__score__isnull=False)
    return done.count(), wanted


def _pairs(experiment: Experiment) -> list[tuple[float, float]]:
    """(baseline, candidate) scores of the complete pairs, in order."""
    scores: dict[int, dict[str, float]] = {}
    for trial in experiment.trials.filter(result__score__isnull=False).select_related("result").order_by("pair"):
        scores.setdefault(trial.pair, {})[trial.arm] = trial.result.value
    return [(arms[Trial.Arm.BASELINE], arms[Trial.Arm.CANDIDATE]) for arms in scores.values() if len(arms) == 2]
