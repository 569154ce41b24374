"""A finding that asks for a look forbids a merge until a reviewer overrides it, with a reason that stays."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.loop import merge
from research.models import AuditEntry, Event, Finding, MergeRequest, NotAllowed, NotMergeable, Project, Role, Thread
from tests.cast import World, person
from tests.test_page_review import address, as_user, decide, read, words

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_(thread: Thread, world: World) -> MergeRequest:
    return world.gain(thread, "alpha")


def find(request: MergeRequest, severity: str = "review") -> Finding:
    return Finding.objects.create(
        experiment=request.verdict.experiment, kind="network", severity=severity, message="it opens a socket",
        evidence=["train.py:3: import socket"],
    )  # fmt: skip


def champion(request: MergeRequest) -> str:
    return Project.objects.get(pk=request.project_id).champion


def post(client: Client, finding: Finding, act: str, reason: str = "") -> str:
    fields = {"act": act, "reason": reason, "on": "request"}
    response = client.post(reverse("finding", args=[finding.pk]), fields, follow=True)
    assert response.status_code == 200
    return words(response.content.decode())


def test_a_standing_finding_forbids_the_approval_until_it_is_overridden(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_)
    assert request_.needs_a_look
    with pytest.raises(NotMergeable, match="a finding asks for a look"):
        request_.approve(request_.commit, reviewer)
    assert champion(request_) == request_.base
    finding.override(reviewer, "the socket is only imported")
    assert (finding.overridden_by, finding.override_reason) == (reviewer, "the socket is only imported")
    assert finding.overridden_at is not None and not request_.needs_a_look
    request_.approve(request_.commit, reviewer)
    assert champion(request_) == request_.commit


def test_a_finding_below_in_the_stack_forbids_it_too(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    find(below)
    with pytest.raises(NotMergeable, match=f"a finding of {below.commit[:7]} below it"):
        top.approve(top.commit, reviewer)


def test_an_override_is_audited_told_and_taken_back(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_)
    finding.override(reviewer, "harmless")
    finding.reinstate(reviewer, "on second thought")
    assert finding.overridden_by is None and finding.override_reason == "" and request_.needs_a_look
    acts = AuditEntry.objects.filter(actor=reviewer).order_by("pk")
    assert [(row.action, row.detail["reason"]) for row in acts] == [
        ("override a finding", "harmless"), ("reinstate a finding", "on second thought"),
    ]  # fmt: skip
    event = Event.objects.filter(kind=Event.Kind.FINDING).earliest("seq")
    assert event.text == "finding overridden by rosa: harmless (it opens a socket)"
    assert {"review", f"experiment:{request_.verdict.experiment.public_id}"} <= event.topics


def test_only_once_and_only_with_a_reason(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_)
    with pytest.raises(NotMergeable, match="say why"):
        finding.override(reviewer, "  ")
    with pytest.raises(NotMergeable, match="it stands already"):
        finding.reinstate(reviewer, "no")
    finding.override(reviewer, "fine")
    with pytest.raises(NotMergeable, match="overridden already"):
        Finding.objects.get(pk=finding.pk).override(reviewer, "fine again")
    assert AuditEntry.objects.filter(action="override a finding").count() == 1


def test_a_structural_finding_is_never_overridden_into_a_merge(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_, "structural")
    with pytest.raises(NotMergeable, match="nobody can override it into a merge"):
        finding.override(reviewer, "please")
    with pytest.raises(NotMergeable):
        request_.approve(request_.commit, reviewer)
    with pytest.raises(NotMergeable, match="only informs"):
        find(request_, "info").override(reviewer, "please")


def test_neither_members_nor_who_asked_for_the_gain_may_override(
    request_: MergeRequest, reviewer: User, member: User
) -> None:
    finding = find(request_)
    with pytest.raises(NotAllowed, match="only a reviewer of question may override a finding"):
        finding.override(member, "mine")
    Thread.objects.filter(pk=request_.thread_id).update(steered_by=reviewer)
    with pytest.raises(NotAllowed, match="somebody else has to override a finding"):
        finding.override(reviewer, "mine")
    Project.objects.filter(pk=request_.project_id).update(single_person=True)
    Finding.objects.get(pk=finding.pk).override(reviewer, "there is nobody else")


def test_policy_approves_only_what_a_person_overrode(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_)
    Project.objects.filter(pk=request_.project_id).update(auto_approve=True)
    thread = Thread.objects.select_related("project").get(pk=request_.thread_id)
    assert not merge.approve_by_policy(thread)
    finding.override(reviewer, "looked at")
    assert merge.approve_by_policy(thread) and champion(request_) == request_.commit


# The pages


def test_the_merge_page_offers_the_override_and_then_the_approval(request_: MergeRequest, reviewer: User) -> None:
    finding, rosa = find(request_), as_user(reviewer)
    page = words(read(rosa, address(request_)))
    assert "You cannot approve this: a finding asks for a look" in page and "forbids a merge" in page
    assert "1 finding asks for your look, below" in page
    text = post(rosa, finding, "override", "the import is never used")
    assert "The finding is overridden." in text and "Overridden by rosa" in text
    assert "the import is never used" in text and "1 finding overridden by rosa" in text
    assert "1 finding" not in words(read(rosa, reverse("review")))
    assert "main moved" in decide(rosa, request_, "approve")
    text = words(read(rosa, reverse("experiment", args=[request_.verdict.experiment.public_id])))
    assert "Overridden by rosa" in text and "the import is never used" in text


def test_the_experiment_page_comes_back_to_itself(request_: MergeRequest, reviewer: User) -> None:
    finding = find(request_)
    response = as_user(reviewer).post(reverse("finding", args=[finding.pk]), {"act": "override", "reason": "ok"})
    assert response["Location"] == f"/e/{request_.verdict.experiment.public_id}/#findings"


def test_who_may_not_override_is_told_why_and_strangers_find_nothing(
    request_: MergeRequest, member: User, outsider: User
) -> None:
    finding = find(request_)
    vera = as_user(person("vera", Role.VIEWER))
    assert "Not yours to override: only a reviewer" in words(read(vera, address(request_)))
    url = reverse("finding", args=[finding.pk])
    for client in (vera, as_user(member)):
        assert client.post(url, {"act": "override", "reason": "mine"}).status_code == 403
    assert as_user(outsider).post(url, {"act": "override", "reason": "mine"}).status_code == 404
    assert vera.post(url, {"act": "delete"}).status_code == 403 and vera.get(url).status_code == 405
    finding.refresh_from_db()
    assert finding.overridden_at is None and not AuditEntry.objects.filter(action="override a finding").exists()
