"""A candidate that `main` leaves behind early in its confirmation goes on from where `main` stands."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.loop import learn
from research.models import Experiment, Idea, Lesson, Project, Thread, Trial, Verdict
from tests import cast
from tests.cast import World, constants, focus, go, repository_of, running, step
from tests.stage import Stage

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def second(project: Project) -> Thread:
    """On the start, as the first thread was; that one has an open gain."""
    Thread.objects.filter(project=project).update(directives={"focus": ["nothing at all"]})
    Idea.objects.filter(state=Idea.State.PROPOSED).delete()
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def screened(world: World, thread: Thread, technique: str, until: str = "confirm") -> Experiment:
    """Of this technique, as soon as its confirmation waits, or another stage."""
    focus(thread, technique)
    for _ in range(9):
        go(thread)
        experiment = running(thread)
        assert experiment is not None
        if experiment.trials.filter(stage=until).exists():
            return experiment
        world.run(1)
    raise AssertionError(f"it never came to {until}")


def planned(thread: Thread, technique: str) -> Experiment:
    """Of this technique, with its first trials, none of them taken."""
    focus(thread, technique)
    while (experiment := running(thread)) is None:
        assert step(thread)
    assert experiment.trials.exists()
    return experiment


def merge(project: Project, reviewer: User) -> str:
    request = project.merge_requests.get()
    request.approve(request.commit, reviewer)
    project.refresh_from_db()
    return project.champion


def test_it_is_measured_on_the_new_main_and_not_confirmed_on_the_old_one(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    left = screened(world, second, "beta")
    assert step(second) is None, "while main stands, its confirmation waits for a machine"
    taken = Trial.objects.claim_pair(world.machine, "player")  # before the result that moves main was there
    assert {lease.trial.experiment for lease in taken} == {left}
    main = merge(project, reviewer)
    assert step(second) == "move"
    second.refresh_from_db()
    assert second.head == main
    verdict = Verdict.objects.get(experiment=left)
    assert verdict.kind == "inconclusive" and "main moved on before it was confirmed" in verdict.reason
    assert not left.trials.filter(stage="confirm", state=Trial.State.WAITING).exists()
    assert all(world.finish(lease) for lease in taken), "what runs ends, and changes nothing"
    moved = second.ideas.latest("pk")
    assert (moved.kind, moved.steps) == (left.candidate.idea.kind, left.candidate.idea.steps) and moved.trusted
    assert (
        constants(project, moved.candidate.commit)["ALPHA"] == constants(project, moved.candidate.commit)["BETA"] == 2
    )
    assert [each["technique"] for each in moved.candidate.recipe] == ["alpha", "beta"]
    focus(second, "nothing at all")
    after = world.until_verdict(second)
    assert after.experiment.candidate == moved.candidate and after.experiment.baseline_commit == main
    assert after.kind == "improved"
    assert not Experiment.objects.filter(baseline_commit=project.start_commit, candidate=moved.candidate).exists()


def test_one_pair_that_has_been_measured_does_not_hold_it_back(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    left = screened(world, second, "beta")
    world.run(1)
    merge(project, reviewer)
    assert step(second) == "move"
    verdict = Verdict.objects.get(experiment=left)
    assert (verdict.kind, verdict.pairs) == ("inconclusive", 1) and not verdict.near_miss
    lesson = learn.learn(verdict)
    assert lesson.kind == "unsettled" and lesson.effect and lesson.effect > 0, "it had gained, as far as one saw"


def test_what_is_half_way_to_its_first_look_is_confirmed(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    begun = screened(world, second, "beta")
    world.run(2)
    merge(project, reviewer)
    assert step(second) != "move"
    assert world.until_verdict(second).experiment == begun


def test_where_git_cannot_move_it_its_techniques_are_applied_again(
    project: Project, second: Thread, world: World
) -> None:
    screened(world, second, "beta")
    repository = repository_of(project)
    files = repository.files(project.start_commit)
    files = {path: text.replace(b"BETA = 1.0", b"BETA = 3.0") for path, text in files.items()}
    main = repository.commit_files(files, project.start_commit, "The same line", project.created)
    project.move_champion(project.start_commit, main)
    assert step(second) == "move"
    moved = second.ideas.latest("pk")
    assert moved.candidate.parent == main and constants(project, moved.candidate.commit)["BETA"] == 2
    assert Lesson.objects.get(kind=Lesson.Kind.CONFLICT, base=main).techniques == []


def test_what_nobody_has_begun_to_measure_is_measured_on_the_new_main_alone(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    waiting = planned(second, "beta")
    main = merge(project, reviewer)
    assert step(second) == "move"
    waiting.refresh_from_db()
    assert waiting.state == Experiment.State.CANCELLED and not Verdict.objects.filter(experiment=waiting).exists()
    assert not waiting.trials.filter(state=Trial.State.WAITING).exists()
    focus(second, "nothing at all")
    after = world.until_verdict(second)
    assert after.experiment.baseline_commit == main and after.kind == "improved"
    assert [each["technique"] for each in after.experiment.candidate.recipe] == ["alpha", "beta"]


def test_what_is_being_screened_is_screened_to_the_end(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    screening = planned(second, "beta")
    taken = Trial.objects.claim_pair(world.machine, "player")
    assert {lease.trial.experiment for lease in taken} == {screening}
    merge(project, reviewer)
    assert step(second) != "move"
    screening.refresh_from_db()
    assert screening.state == Experiment.State.RUNNING


def test_what_is_to_be_screened_further_is_screened_on_the_new_main_instead(
    project: Project, second: Thread, world: World, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.gains["BETA"] = 0.002  # a gain by the floor's noise, and too little to be clear at once
    monkeypatch.setattr(cast, "SIGMA", 1e-4)
    left = screened(world, second, "beta", "extend")
    main = merge(project, reviewer)
    assert step(second) == "move"
    verdict = Verdict.objects.get(experiment=left)
    assert (verdict.kind, verdict.stage) == ("inconclusive", "screen") and "measured there again" in verdict.reason
    assert not left.trials.filter(state=Trial.State.WAITING).exists()
    assert second.ideas.latest("pk").candidate.parent == main and learn.learn(verdict).kind == "unsettled"


def test_what_is_being_screened_further_goes_on(
    project: Project, second: Thread, world: World, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.gains["BETA"] = 0.002
    monkeypatch.setattr(cast, "SIGMA", 1e-4)
    left = screened(world, second, "beta", "extend")
    taken = Trial.objects.claim_pair(world.machine, "player")
    assert {lease.trial.stage for lease in taken} == {"extend"}
    merge(project, reviewer)
    assert step(second) != "move"
    left.refresh_from_db()
    assert left.state == Experiment.State.RUNNING


def test_what_is_half_way_and_has_not_gained_stops_and_is_not_moved(
    project: Project, second: Thread, world: World, reviewer: User
) -> None:
    begun = screened(world, second, "beta")
    world.gains["BETA"] = -0.05  # so it goes with what a shorter preset promised
    world.run(2)
    main = merge(project, reviewer)
    assert step(second) == "move"
    verdict = Verdict.objects.get(experiment=begun)
    assert (verdict.kind, verdict.pairs) == ("inconclusive", 2) and "has not gained so far" in verdict.reason
    assert not begun.trials.filter(state=Trial.State.WAITING).exists()
    focus(second, "nothing at all")
    go(second)
    second.refresh_from_db()
    assert begun.lesson.kind == "no_gain" and second.head == main and running(second) is None
    assert not second.ideas.filter(plan__contains="left behind").exists()
