"""`manage.py review`: a person decides from the shell."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from research.models import AuditEntry, Experiment, Finding, MergeRequest, Thread
from tests.cast import World
from tests.stage import Stage


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


def review(*arguments: str) -> str:
    out = StringIO()
    call_command("review", *arguments, stdout=out)
    return out.getvalue()


def test_open_requests_are_listed_with_their_evidence(thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    text = review(thread.project.name)
    assert request.public_id in text and request.verdict.reason in text


def test_one_approval_merges_the_stack_in_the_name_of_a_person(thread: Thread, world: World, reviewer: User) -> None:
    world.gain(thread, "alpha")
    upper = world.gain(thread, "beta")
    text = review(thread.project.name, "--approve", upper.public_id, "--by", reviewer.username)
    assert text.count("merged") == 2
    thread.project.refresh_from_db()
    assert thread.project.champion == upper.commit
    assert not MergeRequest.objects.filter(decided_by_policy=True).exists()
    assert AuditEntry.objects.filter(actor=reviewer, action="merge").count() == 2


def test_a_rejection_needs_no_approval_of_what_lies_below(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    assert "rejected" in review(thread.project.name, "--reject", request.public_id, "--by", reviewer.username)
    request.refresh_from_db()
    assert request.state == MergeRequest.State.REJECTED


def test_changes_and_more_seeds_are_asked_for_from_the_shell(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    asked = review(thread.project.name, "--more-seeds", request.public_id, "--pairs", "3", "--by", "rosa")
    assert asked == f"experiment 2 measures 3 more pairs of {request.commit[:10]}\n"
    assert Experiment.objects.get(purpose="replicate").trials.count() == 6
    review(thread.project.name, "--request-changes", request.public_id, "--by", "rosa", "--reason", "smaller")
    request.refresh_from_db()
    assert (request.state, request.reason) == (MergeRequest.State.RETURNED, "smaller")


def test_findings_are_listed_and_overridden_from_the_shell(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    Finding.objects.create(
        experiment=request.verdict.experiment, kind="network", severity="review", message="it imports socket"
    )
    assert "forbids a merge: network: it imports socket" in review("question")
    with pytest.raises(CommandError, match="a finding asks for a look"):
        review("question", "--approve", request.public_id, "--by", "rosa")
    said = review("question", "--override", request.public_id, "--by", "rosa", "--reason", "never used")
    assert said == "overridden: network: it imports socket\n"
    assert "merged" in review("question", "--approve", request.public_id, "--by", "rosa")
    said = review("question", "--roll-back", request.public_id, "--by", "rosa", "--reason", "no")
    assert said == f"main stands on {request.base[:10]} again; 1 taken back\n"


def test_who_may_not_decide_is_told_so_in_one_line(thread: Thread, world: World, outsider: User) -> None:
    request = world.gain(thread, "alpha")
    with pytest.raises(CommandError, match="only a reviewer of question may approve") as raised:
        review(thread.project.name, "--approve", request.public_id, "--by", outsider.username)
    assert raised.value.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no project named 'nowhere'"),
        (["question", "--approve", "xyz", "--by", "nobody"], "there is no request 'xyz'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(thread: Thread, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words) as raised:
        review(*arguments)
    assert raised.value.returncode == 2
