"""A merge is taken back in one act: `main` returns, what stood on it is measured without it, nothing is forgotten."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.models import (
    AuditEntry,
    Event,
    Experiment,
    Idea,
    Lesson,
    MergeRequest,
    NotAllowed,
    NotMergeable,
    Project,
    Thread,
)
from tests.cast import World, constants, focus, go, repository_of, running, step
from tests.stage import Stage

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def second(project: Project) -> Thread:
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def champion() -> str:
    return Project.objects.get().champion


def settle(thread: Thread) -> None:
    """All that is due between the thread and main, and nothing new."""
    focus(thread, "nothing at all")
    go(thread)
    Thread.objects.filter(pk=thread.pk).update(state=Thread.State.ACTIVE)
    thread.refresh_from_db()


def turns() -> list[int]:
    return list(Experiment.objects.exclude(hypothesis=None).order_by("hypothesis").values_list("hypothesis", flat=True))


def test_a_rollback_takes_main_back_and_says_who_and_why(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    request.approve(request.commit, reviewer)
    settle(thread)
    before = turns()
    assert request.roll_back(reviewer, "it breaks the long run") == [request]
    assert (request.state, champion()) == (State.ROLLED_BACK, thread.project.start_commit)
    assert request.reason == "rolled back by rosa: it breaks the long run"
    entry = AuditEntry.objects.get(action="roll back")
    assert (entry.actor, entry.detail["request"]) == (reviewer, request.public_id)
    assert Event.objects.get(kind=Event.Kind.ROLLED_BACK).actor == reviewer
    lesson = Lesson.objects.get(kind=Lesson.Kind.REJECTED)
    assert lesson.text == "Rolled back by rosa: it breaks the long run (another ALPHA)"
    assert [row["technique"] for row in lesson.techniques] == ["alpha"]
    settle(thread)
    assert thread.head == champion()
    repository = repository_of(thread.project)
    assert repository.resolve("main") == champion()
    assert repository.resolve(f"refs/rolled-back/{request.public_id}") == request.commit, "history is kept"
    assert turns() == before, "the campaign has asked what it has asked"
    focus(thread, "alpha")
    go(thread)
    assert not running(thread), "a dead end until the lesson is retracted"


def test_only_a_reviewer_rolls_back_and_only_what_main_stands_on(
    thread: Thread, world: World, reviewer: User, member: User
) -> None:
    request = world.gain(thread, "alpha")
    with pytest.raises(NotMergeable, match="the request is open; only a merge"):
        request.roll_back(reviewer, "too early")
    request.approve(request.commit, reviewer)
    with pytest.raises(NotAllowed, match="only a reviewer"):
        request.roll_back(member, "no")
    with pytest.raises(NotAllowed):
        request.may_roll_back(member)
    request.may_roll_back(reviewer)
    same = MergeRequest.objects.get()
    request.roll_back(reviewer, "no")
    with pytest.raises(NotMergeable, match="rolled back; only a merge"):
        same.refresh_from_db()
        same.roll_back(reviewer, "again")
    assert AuditEntry.objects.filter(action="roll back").count() == 1


def test_a_rollback_down_to_a_merge_measures_what_came_after_it_again(
    thread: Thread, world: World, reviewer: User
) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    top.approve(top.commit, reviewer)
    settle(thread)
    below.refresh_from_db()
    assert below.roll_back(reviewer, "wrong") == [top, below]
    top.refresh_from_db()
    assert (below.state, top.state, champion()) == (State.ROLLED_BACK, State.STALE, thread.project.start_commit)
    focus(thread, "nothing at all")
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.parent == champion()
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (1.0, 2.0) and verdict.kind == "improved"
    settle(thread)
    assert thread.head == candidate.commit == thread.merge_requests.open().get().commit


def test_threads_that_had_followed_main_leave_what_was_rolled_back(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    request.approve(request.commit, reviewer)
    settle(second)
    assert second.head == request.commit
    later = world.gain(second, "beta")
    request.roll_back(reviewer, "wrong")
    later.refresh_from_db()
    assert later.state == State.STALE
    focus(second, "nothing at all")
    verdict = world.until_verdict(second)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.idea.kind == Idea.Kind.COMBINATION and candidate.parent == champion()
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (1.0, 2.0)
    settle(thread)
    assert thread.head == champion()


def test_a_request_that_was_measured_where_main_stands_again_is_open_again(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request, other = world.gain(thread, "alpha"), world.gain(second, "beta")
    request.approve(request.commit, reviewer)
    other.refresh_from_db()
    assert other.state == State.STALE
    request.roll_back(reviewer, "wrong")
    before = turns()
    settle(second)
    other.refresh_from_db()
    assert other.state == State.OPEN and second.head == other.commit
    assert turns() == before and not running(second), "the same two trees: nothing is measured again"
    other.approve(other.commit, reviewer)
    assert champion() == other.commit


def test_rolling_a_combination_back_opens_its_parts_again(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    for each, name in ((thread, "alpha"), (second, "beta")):
        world.gain(each, name)
        focus(each, "nothing at all")
    parts = [each.merge_requests.get() for each in (thread, second)]
    world.until_verdict(thread)
    go(thread)
    request = thread.merge_requests.latest("pk")
    request.approve(request.commit, reviewer)
    for each in (thread, second):
        settle(each)
    request.roll_back(reviewer, "one by one, please")
    for each, part in zip((thread, second), parts, strict=True):
        settle(each)
        part.refresh_from_db()
        assert part.state == State.OPEN and each.head == part.commit


def test_a_gain_without_a_recipe_is_moved_by_git_off_what_was_rolled_back(
    thread: Thread, world: World, reviewer: User
) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    Idea.objects.filter(candidate=top.candidate).update(steps=[])
    type(top.candidate).objects.filter(pk=top.candidate.pk).update(recipe=below.candidate.recipe)
    top = MergeRequest.objects.get(pk=top.pk)
    top.approve(top.commit, reviewer)
    settle(thread)
    MergeRequest.objects.get(pk=below.pk).roll_back(reviewer, "wrong")
    focus(thread, "nothing at all")
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.parent == champion()
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (1.0, 2.0)


def test_settling_after_a_rollback_changes_nothing_the_second_time(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request, other = world.gain(thread, "alpha"), world.gain(second, "beta")
    request.approve(request.commit, reviewer)
    request.roll_back(reviewer, "wrong")
    settle(second)
    assert step(second) is None
    other.refresh_from_db()
    assert other.state == State.OPEN


def test_code_from_outside_stays_so_when_git_moves_it_off_what_was_rolled_back(
    thread: Thread, world: World, reviewer: User
) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    Idea.objects.filter(candidate=top.candidate).update(steps=[], trusted=False)
    type(top.candidate).objects.filter(pk=top.candidate.pk).update(recipe=below.candidate.recipe, trusted=False)
    top = MergeRequest.objects.get(pk=top.pk)
    top.approve(top.commit, reviewer)
    MergeRequest.objects.get(pk=below.pk).roll_back(reviewer, "wrong")
    focus(thread, "nothing at all")
    while thread.waiting_candidate is None:
        assert step(thread) == "settle"
    moved = thread.waiting_candidate
    assert moved.parent == champion() and moved.idea.kind == Idea.Kind.COMBINATION and not moved.trusted
