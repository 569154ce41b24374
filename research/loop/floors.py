"""Which noise floor is read: floors belong to a class of machine, and a project may move between classes."""

from __future__ import annotations

from django.db.models import Avg

from research.models import Experiment, Machine, NoiseFloor, Project, Result
from research.validation.records import Stage

DEFAULT_SIGMA = 0.008  # relative noise of a pair until it has been measured


def confirming(experiment: Experiment) -> NoiseFloor | None:
    """What its confirmation is read against: the noisiest floor of the classes that measured it.

    None until the class that the project is on now has a floor: nothing is confirmed before. A class that it has left
    without one cannot be measured any more and has no say.
    """
    project = experiment.project
    now = machine_class_of(project)
    confirms = Result.objects.filter(trial__experiment=experiment, trial__stage=str(Stage.CONFIRM))
    classes = {now, *confirms.values_list("machine_class", flat=True).distinct()}
    found = [floor for floor in of_all_classes(project, project.preset) if floor.machine_class in classes]
    return max(found, key=_relative) if any(floor.machine_class == now for floor in found) else None


def screening(project: Project, preset: str) -> NoiseFloor | None:
    """What screens are read against: the floor of the class that the project is on, else the noisiest of the others.

    Screening only chooses what is confirmed on fresh pairs, so a floor of another class may stand in there.
    """
    return noise_floor(project, preset) or max(of_all_classes(project, preset), key=_relative, default=None)


def of_all_classes(project: Project, preset: str) -> list[NoiseFloor]:
    """The floors of a preset, a class of machine each, oldest first."""
    return list(NoiseFloor.objects.filter(**project.noise_key_at(preset)).order_by("pk"))


def relative_sigma(project: Project) -> float:
    """Noise of one pair as a share of the score."""
    floor = noise_floor(project)
    if project.problems:  # scores of different problems have no mean; all of the floor's are near its level
        return floor.sigma_pair / floor.level if floor and floor.level else DEFAULT_SIGMA
    if floor is None:
        return DEFAULT_SIGMA
    own = Result.objects.filter(trial__project=project, trial__preset="", score__isnull=False)
    level = own.aggregate(mean=Avg("score"))["mean"]
    return floor.sigma_pair / level if level else DEFAULT_SIGMA


def noise_floor(project: Project, preset: str = "") -> NoiseFloor | None:
    """The stored floor of the class of machine that this project runs on, at its own preset or another one."""
    key = project.noise_key_at(preset or project.preset)
    latest = machine_class_of(project)
    return NoiseFloor.objects.filter(machine_class=latest, **key).first() if latest else None


def machine_class_of(project: Project) -> str:
    """The class of machine that the project is on now: of its newest result; empty before the first.

    Where no machine of that class is attached any more, it is on that of the machines which are there for its preset.
    """
    newest = _newest_class(project)
    if not newest:
        return ""
    device = project.sizes.device
    machines = Machine.objects.living().order_by("pk").only("machine_class", "description")
    living = [row.machine_class for row in machines if device in row.devices]
    return newest if newest in living or not living else living[0]


def _newest_class(project: Project) -> str:
    # By trial: the newest result of a project costs SQLite a walk through all of them, 100 ms of 40,000.
    done = project.trials.filter(result__isnull=False).order_by("-pk")
    return done.values_list("result__machine_class", flat=True).first() or ""


def _relative(floor: NoiseFloor) -> float:
    """Sigma of a pair as a share of the level it was measured at: classes of machine reach different levels."""
    return floor.sigma_pair / abs(floor.level) if floor.level else floor.sigma_pair
