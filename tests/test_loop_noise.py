"""The noise floor: measured beside the first screenings, stored for a class of machine, used by every later project."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from research.loop import floors, noise
from research.loop.advance import advance_project_until_idle
from research.models import Experiment, Machine, NoiseFloor, Project, Thread, Trial, Verdict
from tests.cast import SIGMA, World, begin, focus, go, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def quiet(quick: Machine, project: Project) -> World:
    """The quick machine before its noise is known."""
    return World(quick, {"ALPHA": 0.05, "DELTA": -0.05})


def test_a_new_machine_measures_its_noise_with_the_start_against_itself(quiet: World, project: Project) -> None:
    advance_project_until_idle(project.pk)
    experiment = Experiment.objects.get()
    assert experiment.purpose == Experiment.Purpose.NOISE
    assert experiment.baseline_commit == experiment.candidate_commit == project.start_commit
    assert quiet.run() == 12
    advance_project_until_idle(project.pk)
    floor = NoiseFloor.objects.get()
    assert (floor.machine_class, floor.trials) == (quiet.machine.machine_class, 12)
    assert 0.3 * SIGMA < floor.sigma_trial < 3 * SIGMA
    assert noise.progress(project) == (12, 12)


def test_what_a_closing_campaign_cancelled_is_begun_again_when_it_goes_on(quiet: World, project: Project) -> None:
    advance_project_until_idle(project.pk)
    project.exhaust("the campaign's time is over")
    assert Experiment.objects.get().cancel()
    advance_project_until_idle(project.pk)
    assert not Experiment.objects.running().exists()
    project.resume()
    advance_project_until_idle(project.pk)
    assert quiet.run() == 12
    advance_project_until_idle(project.pk)
    assert noise.progress(project) == (12, 12)


def test_screening_does_not_wait_for_the_noise_floor(quiet: World, thread: Thread) -> None:
    focus(thread, "delta")
    verdict = quiet.until_verdict(thread)
    assert (verdict.kind, verdict.stage) == ("inconclusive", "screen")


def test_confirmation_waits_for_the_noise_floor_and_then_goes_on(quiet: World, thread: Thread) -> None:
    experiment = quiet.screens(thread, "alpha")
    assert not NoiseFloor.objects.exists()
    advance_project_until_idle(thread.project_id)
    quiet.run()
    advance_project_until_idle(thread.project_id)
    assert step(thread) == "judge"
    assert experiment.trials.filter(stage="confirm").count() == 8


def test_a_second_project_reuses_the_floor_of_the_same_machine_class(
    quiet: World, project: Project, thread: Thread
) -> None:
    advance_project_until_idle(project.pk)
    quiet.run()
    advance_project_until_idle(project.pk)
    second = begin("second")
    advance_project_until_idle(second.pk)
    focus(second.threads.get(), "alpha")
    assert quiet.until_verdict(second.threads.get()).kind == "improved"
    assert not Experiment.objects.filter(project=second, purpose=Experiment.Purpose.NOISE).exists()
    assert NoiseFloor.objects.count() == 1


def test_another_machine_class_gets_a_floor_of_its_own(quiet: World, project: Project) -> None:
    advance_project_until_idle(project.pk)
    quiet.run()
    advance_project_until_idle(project.pk)
    second = begin("second")
    focus(second.threads.get(), "delta")
    go(second.threads.get())
    slower = World(Machine.objects.create(name="slow", machine_class="slow cpu, 2 slots", slots=2), quiet.gains)
    advance_project_until_idle(second.pk)
    assert slower.run() == 2, "a stored floor may fit: nothing is measured before the first result tells the class"
    advance_project_until_idle(second.pk)
    assert slower.run() == 12
    advance_project_until_idle(second.pk)
    assert set(NoiseFloor.objects.values_list("machine_class", flat=True)) == {
        "quick cpu, 2 slots", "slow cpu, 2 slots"
    }  # fmt: skip


@pytest.fixture
def moved(quiet: World, thread: Thread) -> World:
    """Another class of machine, on which a project goes on that has its floor; what it left is silent."""
    advance_project_until_idle(thread.project_id)
    quiet.run()
    advance_project_until_idle(thread.project_id)
    other = Machine.objects.create(name="moved", machine_class="other cpu, 2 slots", slots=2)
    other.beat()
    return World(other, quiet.gains)


def test_a_project_that_moves_to_another_class_measures_its_noise_there(moved: World, thread: Thread) -> None:
    project = thread.project
    experiment = moved.screens(thread, "alpha")
    go(thread)
    assert not experiment.trials.filter(stage="confirm").exists(), "nothing is confirmed before its noise is known"
    assert noise.progress(project) == (0, 12)
    advance_project_until_idle(project.pk)
    floor = noise.of_preset(project, project.preset).last()
    assert floor and floor.machine_class == "other cpu, 2 slots" and floor.key.endswith("-2")
    assert moved.run() == 12
    advance_project_until_idle(project.pk)
    assert set(NoiseFloor.objects.values_list("machine_class", flat=True)) == {
        "quick cpu, 2 slots", "other cpu, 2 slots"
    }  # fmt: skip
    assert moved.until_verdict(thread).kind == "improved"
    assert noise.of_preset(project, project.preset).count() == 2, "each class once"


def test_screens_on_another_class_are_read_against_the_floor_there_is(moved: World, thread: Thread) -> None:
    experiment = moved.screens(thread, "alpha")
    assert set(experiment.trials.values_list("stage", flat=True)) == {"screen", "extend"}
    known = NoiseFloor.objects.get()
    assert floors.screening(thread.project, thread.project.preset) == known
    assert floors.confirming(experiment) is None


def test_only_its_class_measures_a_floor(moved: World, quiet: World, thread: Thread) -> None:
    moved.screens(thread, "alpha")
    advance_project_until_idle(thread.project_id)
    assert quiet.run() == 0
    assert moved.run() == 12


def test_of_a_class_that_has_gone_nothing_is_asked_and_nothing_waited_for(
    moved: World, quiet: World, thread: Thread
) -> None:
    project = thread.project
    experiment = moved.screens(thread, "alpha")
    Machine.objects.filter(pk=moved.machine.pk).update(seen=timezone.now() - timedelta(minutes=5))
    quiet.machine.beat()
    advance_project_until_idle(project.pk)
    assert noise.of_preset(project, project.preset).count() == 1
    assert floors.confirming(experiment) == NoiseFloor.objects.get(), "back on the class that has a floor"
    assert quiet.until_verdict(thread).kind == "improved"


def test_lost_noise_pairs_are_made_up_for_within_reason(quiet: World, project: Project) -> None:
    quiet.failure = lambda trial: "crash"
    for _ in range(9):
        advance_project_until_idle(project.pk)
        quiet.run()
    assert Trial.objects.values("pair").distinct().count() <= 3 * project.sizes.noise_pairs
    assert not NoiseFloor.objects.exists() and not Verdict.objects.exists()
