"""The noise floor: A/A trials of the start on this class of machine, gathered while screening begins, then reused."""

from __future__ import annotations

from django.db import transaction

from research.loop.floors import machine_class_of, noise_floor
from research.loop.problems import spread
from research.models import Event, Experiment, Machine, NoiseFloor, Project, Result, Trial
from research.models.experiment import ExperimentQuerySet
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
    """Go on with what is being measured, and begin where the class that the project is on now has nothing.

    A project that is packed on one machine and goes on on another moves to another class.
    """
    running = list(of_preset(project, preset).running())
    changed = any([_go_on(experiment) for experiment in running])
    if noise_floor(project, preset) is not None:
        return changed
    now = machine_class_of(project)
    begun = any(experiment.machine_class in ("", now) for experiment in running)
    return (not begun and _begin(project, preset, now)) or changed


def of_preset(project: Project, preset: str) -> ExperimentQuerySet:
    """The A/A experiments of a preset, one for each class of machine, oldest first."""
    other = preset if preset != project.preset else ""
    found = Experiment.objects.filter(project=project, purpose=Experiment.Purpose.NOISE, preset=other)
    return found.order_by("pk")


def _begin(project: Project, preset: str, now: str) -> bool:
    """Of a class that has gone nothing can be measured; the first floor waits for whatever machine comes.

    Where a project has moved, the floor that confirmation waits for comes first: another's may stand in for screens.
    """
    before = of_preset(project, preset)
    if before.exists() and preset != project.preset and noise_floor(project) is None:
        return False
    if not now and NoiseFloor.objects.filter(**project.noise_key_at(preset)).exists():
        return False  # the first result tells the class of machine; a stored floor may fit it
    cancelled = before.filter(state=Experiment.State.CANCELLED)  # by a campaign that closes; it may go on one day
    if cancelled.filter(machine_class__in=("", now)).exists() and not project.is_running:
        return False
    lives = Machine.objects.living().filter(machine_class=now).exists()
    is_first = not before.exclude(state=Experiment.State.CANCELLED).exists()
    return (lives or is_first) and begin(project, preset, now if lives else "")


def _go_on(experiment: Experiment) -> bool:
    changed = not experiment.machine_class and _pin(experiment)
    if not experiment.is_idle():
        return changed
    project, done = experiment.project, len(_pairs(experiment))
    missing = experiment.sizes.noise_pairs - done
    if missing > 0:  # pairs that failed are made up for, within reason
        total = experiment.trials.values("pair").distinct().count()
        if total >= 3 * experiment.sizes.noise_pairs:
            project.pause(f"the noise floor could not be measured: {total - done} A/A pairs failed; "
                          "look at their logs, then resume")  # fmt: skip
            return True
        return experiment.plan("noise", total + missing) > 0
    return store(experiment)


def _pin(experiment: Experiment) -> bool:
    """The class of its first result measures all of it: a floor of several classes would be none."""
    first = Result.objects.filter(trial__experiment=experiment).order_by("pk").first()
    return first is not None and experiment.keep_to(first.machine_class)


def begin(project: Project, preset: str, machine_class: str = "") -> bool:
    """Plan the A/A pairs: both arms are the start. `machine_class` measures them; empty: that of the first result."""
    other = preset if preset != project.preset else ""
    pairs = project.contract.preset(preset).noise_pairs
    problems = spread(project, project.problems)
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        before = of_preset(project, preset)
        if before.running().filter(machine_class__in=("", machine_class)).exists():
            return False  # somebody else began it in between
        known = before.count()
        key = ["noise", project.public_id, *([other] if other else []), *([str(known + 1)] if known else [])]
        experiment = Experiment.objects.create(
            key="-".join(key), project=project, purpose=Experiment.Purpose.NOISE, rule=project.rule, preset=other,
            number=project.next_experiment_number(), baseline_commit=project.start_commit,
            candidate_commit=project.start_commit, problems=problems, machine_class=machine_class,
        )  # fmt: skip
        experiment.plan("noise", pairs)
        at, on = f" at {other}" if other else "", f" on {machine_class}" if known else ""
        words = f"measuring noise{at}{on}: {pairs} pairs of the start against itself"
        Event.record(Event.Kind.NOISE, words, experiment=experiment)
    return True


def store(experiment: Experiment) -> bool:
    from research.validation.floor import noise_floor  # numpy, not for every importer

    project, pairs = experiment.project, _pairs(experiment)
    floor = noise_floor(pairs)
    with transaction.atomic():
        if not experiment.end():
            return False
        NoiseFloor.objects.update_or_create(
            machine_class=experiment.machine_class, **project.noise_key_at(experiment.preset or project.preset),
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
    newest = of_preset(project, preset).running().last()
    done = newest.trials.filter(result__score__isnull=False).count() if newest else 0
    return min(done, wanted), wanted


def _pairs(experiment: Experiment) -> list[tuple[float, float]]:
    """(baseline, candidate) scores of the complete pairs that its class of machine measured, in order."""
    scores: dict[int, dict[str, float]] = {}
    found = experiment.trials.filter(result__score__isnull=False)
    if experiment.machine_class:
        found = found.filter(result__machine_class=experiment.machine_class)
    for trial in found.select_related("result").order_by("pair"):
        scores.setdefault(trial.pair, {})[trial.arm] = trial.result.value
    return [(arms[Trial.Arm.BASELINE], arms[Trial.Arm.CANDIDATE]) for arms in scores.values() if len(arms) == 2]
