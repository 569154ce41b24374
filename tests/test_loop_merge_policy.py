"""Merging by the policy of a project, without a person."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.management.progress import Progress
from research.models import MergeRequest, NotMergeable, Project, Thread
from tests.cast import World, focus, go
from tests.test_loop_merge import champion, settle

pytestmark = pytest.mark.django_db
State = MergeRequest.State


def test_the_policy_of_a_project_approves_without_a_person(thread: Thread, world: World) -> None:
    Project.objects.update(auto_approve=True)
    request = world.gain(thread, "alpha")
    settle(thread)
    request.refresh_from_db()
    assert (request.state, request.decided_by, request.decided_by_policy) == (State.MERGED, None, True)
    assert champion() == request.commit == thread.head


def test_the_policy_leaves_a_finding_to_a_person(
    thread: Thread, world: World, reviewer: User, capsys: pytest.CaptureFixture[str]
) -> None:
    Project.objects.update(auto_approve=True)
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    verdict.experiment.findings.create(kind="network", severity="review", message="train.py imports socket")
    go(thread)
    request = thread.merge_requests.get()
    assert request.state == State.OPEN and champion() == thread.project.start_commit
    with pytest.raises(NotMergeable, match="override it with a reason"):
        request.approve(request.commit, reviewer)
    progress = Progress(Project.objects.get(), 60)
    progress.show("search")
    told = capsys.readouterr().err
    assert f"{request.commit[:10]} of {thread} waits for a person: train.py imports socket" in told
    assert "0 merged, 1 gain for a person to look at" in told
    progress.show("search")
    assert "waits for a person" not in capsys.readouterr().err  # said once
    verdict.experiment.findings.get().override(reviewer, "imported, never used")
    go(thread)
    Progress(Project.objects.get(), 60).show("search")
    assert "to look at" not in capsys.readouterr().err
    request.refresh_from_db()
    assert champion() == request.commit and request.decided_by_policy
