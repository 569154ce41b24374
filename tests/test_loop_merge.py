"""Requests stack, are approved together, go stale, are rejected; threads follow `main` or are combined with it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.models import AuditEntry, Experiment, Idea, Lesson, MergeRequest, NotMergeable, Project, Thread
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
    Thread.objects.filter(pk=thread.pk).update(state=Thread.State.ACTIVE)  # it had nothing to propose


def test_gains_of_a_thread_stack_and_are_approved_in_one_act(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    assert top.parent == below and top.base == below.commit and top.stack() == [below, top]
    assert champion() == thread.project.start_commit, "only a person moves main"
    assert top.approve(top.commit, reviewer) == [below, top]
    assert champion() == top.commit == thread.head
    assert set(MergeRequest.objects.values_list("state", "decided_by")) == {(State.MERGED, reviewer.pk)}
    assert AuditEntry.objects.filter(actor=reviewer, action="merge").count() == 2
    settle(thread)
    assert repository_of(thread.project).resolve("main") == top.commit


def test_approving_the_lower_request_leaves_the_upper_one_open_on_it(
    thread: Thread, world: World, reviewer: User
) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    below.approve(below.commit, reviewer)
    settle(thread)
    top = MergeRequest.objects.get(pk=top.pk)
    assert (top.state, thread.head, top.stack()) == (State.OPEN, top.commit, [top])
    top.approve(top.commit, reviewer)
    assert champion() == top.commit


def test_an_approval_is_bound_to_the_commit_that_was_looked_at(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    with pytest.raises(NotMergeable, match="look again"):
        request.approve(request.base, reviewer)
    assert MergeRequest.objects.get().state == State.OPEN and champion() == request.base
    assert not AuditEntry.objects.exists()


def test_a_decided_request_cannot_be_decided_again(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    same = MergeRequest.objects.get()
    request.approve(request.commit, reviewer)
    for act in (lambda: request.approve(request.commit), lambda: request.reject(reviewer, "no")):
        with pytest.raises(NotMergeable, match="only an open one"):
            act()
    with pytest.raises(NotMergeable):
        same.approve(same.commit, reviewer)
    assert AuditEntry.objects.count() == 1


def test_a_thread_without_gains_follows_main(thread: Thread, second: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    request.approve(request.commit)
    assert step(second) == "settle"
    second.refresh_from_db()
    assert second.head == request.commit and "followed main" in second.note


def test_gains_of_two_threads_are_merged_three_ways_and_measured_against_main(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    other = world.gain(second, "beta")
    own_head = second.head
    request.approve(request.commit, reviewer)
    with pytest.raises(NotMergeable, match="main has moved"):
        other.approve(other.commit, reviewer)
    verdict = world.until_verdict(second)
    other.refresh_from_db()
    candidate = verdict.experiment.candidate
    assert other.state == State.STALE and candidate and candidate.idea.kind == Idea.Kind.COMBINATION
    assert candidate.parent == verdict.experiment.baseline_commit == request.commit
    assert constants(second.project, candidate.commit)["ALPHA"] == 2.0
    assert constants(second.project, candidate.commit)["BETA"] == 2.0
    parents = repository_of(second.project).git("show", "-s", "--format=%P", candidate.commit).split()
    assert parents == [request.commit, own_head]
    assert verdict.kind == "improved" and candidate.recipe == [
        {"technique": "alpha", "tunables": {"value": 2.0}},
        {"technique": "beta", "tunables": {"value": 2.0}},
    ]
    settle(second)
    final = second.merge_requests.open().get()
    assert second.head == final.commit == candidate.commit and final.base == request.commit
    final.approve(final.commit, reviewer)
    assert champion() == candidate.commit


def test_where_git_conflicts_the_techniques_are_applied_again(thread: Thread, second: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    world.gain(second, "gamma")
    request.approve(request.commit)
    verdict = world.until_verdict(second)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.parent == request.commit and verdict.kind == "improved"
    values = constants(second.project, candidate.commit)
    assert (values["ALPHA"], values["GAMMA"]) == (2.0, 2.0)
    parents = repository_of(second.project).git("show", "-s", "--format=%P", candidate.commit).split()
    assert parents == [request.commit]


def test_gains_that_cannot_stand_together_teach_a_conflict(thread: Thread, second: Thread, world: World) -> None:
    world.gains["EXTRA"] = 0.05
    request = world.gain(thread, "alpha")
    world.gain(second, "stubborn")
    request.approve(request.commit)
    settle(second)
    lesson = Lesson.objects.get(kind=Lesson.Kind.CONFLICT)
    assert "train.py" in lesson.text and "stubborn" in lesson.text
    assert second.head == request.commit and not running(second)
    assert second.ideas.get(kind=Idea.Kind.COMBINATION).state == Idea.State.REFUSED


def test_a_combination_without_a_gain_over_main_lets_the_thread_follow_main(
    thread: Thread, second: Thread, world: World
) -> None:
    request = world.gain(thread, "alpha")
    world.gain(second, "beta")
    request.approve(request.commit)
    world.gains["BETA"] = -0.05  # beside ALPHA it does harm
    assert world.until_verdict(second).kind == "inconclusive"
    assert [step(second), step(second)] == ["learn", "settle"]
    second.refresh_from_db()
    assert second.head == request.commit and "did not add to main" in second.note


def test_a_thread_keeps_its_newer_gains_after_an_old_combination_failed(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    world.gain(second, "beta")
    request.approve(request.commit)
    world.gains["BETA"] = -0.05
    world.until_verdict(second)
    settle(second)
    world.gains["DELTA"] = 0.05
    world.gain(second, "gamma", "delta")
    low = second.merge_requests.open().earliest("pk")
    low.reject(reviewer, "not that one")
    verdict = world.until_verdict(second)
    candidate = verdict.experiment.candidate
    assert candidate and verdict.kind == "improved"
    values = constants(second.project, candidate.commit)
    assert (values["DELTA"], values["GAMMA"]) == (2.0, 1.0)


def test_rejecting_a_request_measures_its_descendants_again_without_it(
    thread: Thread, world: World, reviewer: User
) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    below.reject(reviewer, "too clever")
    top.refresh_from_db()
    assert (below.state, top.state) == (State.REJECTED, State.STALE)
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.parent == champion() == thread.project.start_commit
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (1.0, 2.0)
    assert verdict.kind == "improved"
    settle(thread)
    assert thread.head == candidate.commit == thread.merge_requests.open().get().commit


def test_rejecting_the_upper_request_keeps_the_gain_below_it(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    top.reject(reviewer, "unreadable")
    settle(thread)
    below.refresh_from_db()
    assert thread.head == below.commit and below.state == State.OPEN
    assert not Experiment.objects.filter(candidate__idea__kind=Idea.Kind.COMBINATION).exists()


def test_a_rejected_request_alone_sends_the_thread_back_to_main(thread: Thread, world: World, reviewer: User) -> None:
    world.gain(thread, "alpha").reject(reviewer, "no")
    settle(thread)
    assert thread.head == champion() == thread.project.start_commit


def test_a_request_made_while_main_moved_is_stale_at_once(thread: Thread, second: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    focus(second, "beta")
    assert world.until_verdict(second).kind == "improved"
    request.approve(request.commit)
    settle(second)
    assert second.merge_requests.get().state == State.STALE
    experiment = running(second)
    assert experiment and experiment.baseline_commit == request.commit
