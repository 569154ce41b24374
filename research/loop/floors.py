"""Which noise floor is read: floors belong to a class of machine, and a project may move between classes."""

from __future__ import annotations

from research.loop.memory import machine_class_of, noise_floor
from research.models import Experiment, NoiseFloor, Project, Result
from research.validation.records import Stage


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


def _relative(floor: NoiseFloor) -> float:
    """Sigma of a pair as a share of the level it was measured at: classes of machine reach different levels."""
    return floor.sigma_pair / abs(floor.level) if floor.level else floor.sigma_pair
