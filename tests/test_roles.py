"""Who may do what: roles in a project, and that nobody approves what they started or steered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from research.loop.begin import add_thread
from research.models import (
    AuditEntry,
    Event,
    Lesson,
    Membership,
    MergeRequest,
    NotAllowed,
    NotMergeable,
    Project,
    Role,
    Thread,
)
from tests.cast import World, begin, person
from tests.stage import Stage

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def request_(thread: Thread) -> MergeRequest:
    return thread.merge_requests.get()


def test_a_reviewer_may_approve_and_nobody_below(request_: MergeRequest, reviewer: User, member: User) -> None:
    request_.may_approve(reviewer)
    viewer = person("vera", Role.VIEWER)
    for somebody in (member, viewer):
        with pytest.raises(NotAllowed, match="only a reviewer of question may approve"):
            request_.may_approve(somebody)
        with pytest.raises(NotAllowed):
            request_.approve(request_.commit, somebody)
    assert Project.objects.get().champion == request_.base
    assert not AuditEntry.objects.exists()


def test_a_reviewer_of_another_project_is_an_outsider_here(request_: MergeRequest) -> None:
    elsewhere = person("rolf", Role.REVIEWER, begin("elsewhere"))
    with pytest.raises(NotAllowed):
        request_.may_approve(elsewhere)
    here = person("ruth", Role.REVIEWER, request_.project)
    request_.may_approve(here)


def test_a_reviewer_who_was_deactivated_may_nothing(request_: MergeRequest, reviewer: User) -> None:
    reviewer.is_active = False
    reviewer.save()
    with pytest.raises(NotAllowed):
        request_.approve(request_.commit, reviewer)


def test_whoever_started_the_project_does_not_approve_in_it(toy: None, world: World, reviewer: User) -> None:
    project = begin("own", started_by=reviewer)
    thread = project.threads.get()
    assert (project.started_by, thread.steered_by) == (reviewer, reviewer)
    request = world.gain(thread, "alpha")
    with pytest.raises(NotAllowed, match="you started this project"):
        request.may_approve(reviewer)
    request.approve(request.commit, person("ruth", Role.REVIEWER))


def test_whoever_steered_last_does_not_approve_what_came_of_it(
    thread: Thread, request_: MergeRequest, reviewer: User, member: User
) -> None:
    thread.steer(reviewer, focus=["beta"], forbid=[])
    with pytest.raises(NotAllowed, match="you started or steered thread 1 last"):
        request_.approve(request_.commit, reviewer)
    thread.steer(member, focus=["beta"], forbid=[])
    request_.may_approve(reviewer)


def test_a_stack_asks_for_somebody_who_steered_none_of_it(
    thread: Thread, world: World, reviewer: User, request_: MergeRequest
) -> None:
    second = Thread.objects.create(
        project=thread.project, number=2, researcher="catalogue", head=thread.head, steered_by=reviewer
    )
    upper = world.gain(second, "beta")
    assert upper.stack() == [request_, upper]
    request_.may_approve(reviewer)
    with pytest.raises(NotAllowed, match="thread 2"):
        upper.may_approve(reviewer)
    Thread.objects.update(steered_by=None)
    Thread.objects.filter(pk=thread.pk).update(steered_by=reviewer)
    with pytest.raises(NotAllowed, match="thread 1"):
        upper.may_approve(reviewer)


def test_a_single_person_may_steer_and_approve_where_the_project_says_so(
    toy: None, world: World, reviewer: User
) -> None:
    project = begin("alone", started_by=reviewer, single_person=True)
    request = world.gain(project.threads.get(), "alpha")
    request.may_approve(reviewer)
    assert request.approve(request.commit, reviewer)


def test_what_cannot_be_approved_now_says_why(
    thread: Thread, world: World, reviewer: User, request_: MergeRequest
) -> None:
    Project.objects.update(champion="f" * 40)
    with pytest.raises(NotMergeable, match="main has moved"):
        MergeRequest.objects.get().may_approve(reviewer)
    request_.reject(reviewer, "no")
    with pytest.raises(NotMergeable, match="the request is rejected; only an open one can be approved"):
        request_.may_approve(reviewer)


@pytest.mark.parametrize(
    "act",
    [
        lambda request, user: request.reject(user, "no"),
        lambda request, user: request.request_changes(user, "smaller"),
        lambda request, user: request.approve(request.commit, user),
    ],
)
def test_a_member_decides_nothing(
    request_: MergeRequest, member: User, act: Callable[[MergeRequest, User], object]
) -> None:
    events = Event.objects.head()
    with pytest.raises(NotAllowed, match="only a reviewer"):
        act(request_, member)
    request_.refresh_from_db()
    assert request_.state == State.OPEN and Event.objects.head() == events
    assert not AuditEntry.objects.exists() and not Lesson.objects.filter(kind=Lesson.Kind.REJECTED).exists()


@pytest.mark.parametrize(
    "act",
    [
        lambda request, user: request.more_seeds(user),
        lambda request, user: request.thread.steer(user, ["alpha"], []),
        lambda request, user: request.thread.pause(user),
        lambda request, user: request.thread.resume(user),
        lambda request, user: request.project.pause("", user),
        lambda request, user: request.project.set_budget(user, max_trials=5),
        lambda request, user: add_thread(request.project, "catalogue", user),
        lambda request, user: request.verdict.experiment.lesson.retract(user),
        lambda request, user: begin("another", started_by=user),
    ],
)
def test_an_outsider_and_a_viewer_do_nothing(
    request_: MergeRequest, outsider: User, act: Callable[[MergeRequest, User], object]
) -> None:
    events = Event.objects.head()
    for user in (outsider, person("vera", Role.VIEWER)):
        with pytest.raises(NotAllowed, match="only a member"):
            act(request_, user)
    assert Event.objects.head() == events and not AuditEntry.objects.exists()
    assert Project.objects.count() == 1 and Thread.objects.count() == 1


def test_the_policy_needs_no_role(request_: MergeRequest) -> None:
    request_.approve(request_.commit)
    entry = AuditEntry.objects.get()
    assert entry.actor is None and str(entry).endswith("policy: merge")
    assert MergeRequest.objects.get().decided_by_policy


def test_a_member_starts_a_project_and_adds_a_thread(toy: None, member: User) -> None:
    project = begin("mine", started_by=member)
    thread = add_thread(project, "catalogue", member)
    assert (thread.number, thread.steered_by, thread.head) == (2, member, project.champion)
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["start", "add thread"]
    with pytest.raises(ValueError, match="no researcher 'nobody'; there are catalogue"):
        add_thread(project, "nobody", member)


def test_a_budget_is_raised_by_a_person_and_the_project_goes_on(project: Project, member: User) -> None:
    project.set_budget(member, max_trials=2, max_wall_seconds=60)
    project.exhaust("the budget of 2 trials is spent")
    project.set_budget(member, max_trials=100, max_wall_seconds=None)
    assert (project.max_trials, project.max_wall_seconds, project.state) == (100, None, "active")
    assert AuditEntry.objects.filter(actor=member, action="budget").count() == 2
    assert Event.objects.filter(actor=member, text="budget set by mia: 100 trials, no limit of wall seconds").exists()
    for wrong in ({"max_trials": 0}, {"max_coffee": 3}):
        with pytest.raises(ValueError, match="budget"):
            project.set_budget(member, **wrong)


def test_pauses_by_a_person_are_kept_in_the_books(thread: Thread, member: User) -> None:
    thread.pause(member), thread.resume(member), thread.project.pause("lunch", member), thread.project.resume(member)
    assert list(AuditEntry.objects.values_list("action", "actor")) == [
        (act, member.pk) for act in ("pause", "resume", "pause", "resume")
    ]
    thread.resume(member)
    assert AuditEntry.objects.count() == 4, "nothing to resume"


def test_roles_add_up_over_one_project_and_all(project: Project) -> None:
    user = person("ada", Role.VIEWER)
    Membership.objects.create(user=user, project=project, role=Role.REVIEWER)
    Membership.require(user, project, Role.REVIEWER, "approve")
    with pytest.raises(NotAllowed, match="only a member of the lab may start a project"):
        Membership.require(user, None, Role.MEMBER, "start a project")
    Membership.require(None, project, Role.ADMIN, "do anything")
