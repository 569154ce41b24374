"""Rolling a merge back from its page: by a reviewer, with a reason, in one act."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.models import AuditEntry, MergeRequest, Project, Thread
from tests.cast import World
from tests.stage import Stage
from tests.test_page_review import address, as_user, decide, read, words

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def merged(thread: Thread, world: World, reviewer: User) -> tuple[MergeRequest, MergeRequest]:
    """Two merges, one on the other."""
    top = world.gain(thread, "alpha", "beta")
    return tuple(top.approve(top.commit, reviewer))  # type: ignore[return-value]


@pytest.fixture
def rosa(reviewer: User) -> Client:
    return as_user(reviewer)


def champion(request: MergeRequest) -> str:
    return Project.objects.get(pk=request.project_id).champion


def test_a_merge_is_rolled_back_with_a_reason(merged: tuple[MergeRequest, MergeRequest], rosa: Client) -> None:
    _, top = merged
    assert 'popovertarget="rollback"' in read(rosa, address(top))
    assert "say why" in decide(rosa, top, "rollback", note=" ") and champion(top) == top.commit
    text = decide(rosa, top, "rollback", note="it breaks the export")
    assert f"Rolled back: main stands on {top.base[:7]} again." in text and "it breaks the export" in text
    assert champion(top) == top.base
    assert AuditEntry.objects.get(action="roll back").detail["request"] == top.public_id
    assert 'popovertarget="rollback"' not in read(rosa, address(top))


def test_the_page_says_how_many_merges_go_with_it(merged: tuple[MergeRequest, MergeRequest], rosa: Client) -> None:
    below, top = merged
    assert "This takes back 2 merges; the 1 that came after it" in words(read(rosa, address(below)))
    assert "1 merged after it is measured again" in decide(rosa, below, "rollback", note="no")
    top.refresh_from_db()
    assert (champion(top), top.state) == (below.base, MergeRequest.State.STALE)


def test_only_a_reviewer_rolls_back(merged: tuple[MergeRequest, MergeRequest], member: User) -> None:
    mia, (_, top) = as_user(member), merged
    assert "rollback" not in read(mia, address(top))
    reply = mia.post(reverse("decide", args=[top.public_id]), {"act": "rollback", "note": "mine"})
    assert reply.status_code == 403 and "this needs the role reviewer" in reply.content.decode()
    assert champion(top) == top.commit


def test_an_open_request_is_not_rolled_back(thread: Thread, world: World, rosa: Client) -> None:
    request = world.gain(thread, "alpha")
    assert "rollback" not in read(rosa, address(request))
    assert "Nothing was changed: the request is open" in decide(rosa, request, "rollback", note="no")
