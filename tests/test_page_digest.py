"""Since you were away: by project, with links, once; and marked as seen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from research.models import AuditEntry, Machine, Preferences, Project, Role, Thread
from tests.cast import World, begin, person
from tests.stage import Stage

HOURS = timedelta(hours=8)


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def rosa(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    client.get("/")
    return client


def leave(user: User, for_: timedelta = HOURS) -> None:
    """The newest visit was that long ago, and so was what the person saw then."""
    Preferences.objects.filter(user=user).update(seen=timezone.now() - for_)


def digest(client: Client) -> str:
    """The text of the digest; empty where there is none."""
    page = " ".join(client.get("/").content.decode().split())
    return page[page.index('class="card digest"') :].split("</section>")[0] if "card digest" in page else ""


def test_each_project_tells_what_came_of_it(
    rosa: Client, reviewer: User, member: User, thread: Thread, world: World
) -> None:
    first = world.gain(thread, "alpha")
    first.approve(first.commit)
    second = world.gain(thread, "beta")
    third = world.gain(thread, "gamma")
    third.request_changes(member_with(Role.REVIEWER), "smaller")
    thread.halt("ValueError: no")
    Project.objects.update(max_device_seconds=10_000)
    begin("silent")
    leave(reviewer)
    text = digest(rosa)
    assert "3 verdicts" in text and "3 improved, at best +" in text and "1 merged into main" in text
    assert "1 returned" in text and "/lessons/?project=question" in text and "of its budget" in text
    assert f'href="/review/{second.public_id}/">1 new request waits for you' in text
    assert f'href="/t/{thread.public_id}/">thread 1 halted' in text
    assert "silent" not in text, "nothing happened there"
    assert "2 acts of others" in text and "/p/question/audit/?since=" in text
    link = text.split("/p/question/audit/")[1].split('"')[0]
    assert rosa.get(f"/p/question/audit/{link}").content.decode().count('id="entry-') == 2


def member_with(role: Role) -> User:
    return person("ruth", role)


def test_a_request_that_somebody_else_has_to_approve_is_told_so(
    rosa: Client, reviewer: User, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    Thread.objects.update(steered_by=reviewer)
    leave(reviewer)
    assert "1 new request for somebody else to approve" in digest(rosa)


def test_a_machine_that_fell_silent_meanwhile_is_named(rosa: Client, reviewer: User, world: World) -> None:
    Machine.objects.update(seen=timezone.now() - timedelta(hours=2))
    leave(reviewer)
    assert "Machine quick" in digest(rosa)
    Machine.objects.update(seen=timezone.now() - timedelta(hours=20))
    leave(reviewer)
    assert "Machine quick" not in digest(rosa), "it was silent before"


def test_nothing_is_told_twice(rosa: Client, reviewer: User, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    leave(reviewer)
    assert "1 verdict<" in digest(rosa)
    world.gain(thread, "beta")
    assert "2 verdicts" in digest(rosa), "while it is shown it goes on counting"
    left = timezone.now()
    Preferences.objects.update(seen=left)
    world.gain(thread, "gamma")
    session = rosa.session
    session["back_at"] = (left - HOURS).isoformat()
    session.save()
    Preferences.objects.update(seen=left)
    rows = Preferences.objects.get(user=reviewer)
    assert rows.visit(left + HOURS, timedelta(minutes=30)) and rows.away_since == left
    session["back_at"] = timezone.now().isoformat()
    session.save()
    assert "1 verdict<" in digest(rosa), "only what came after the page was last looked at"


def test_it_can_be_marked_as_seen(rosa: Client, reviewer: User, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    leave(reviewer)
    assert "Mark as seen" in digest(rosa)
    assert rosa.post("/seen/").status_code == 302
    assert digest(rosa) == ""
    assert rosa.get("/seen/").status_code == 405


def test_it_tells_nothing_of_projects_of_others(thread: Thread, world: World, client: Client) -> None:
    world.gain(thread, "alpha")
    AuditEntry.record(None, "count", thread.project)
    olga = person("olga", Role.MEMBER, begin("other"))
    client.force_login(olga)
    client.get("/")
    leave(olga)
    assert digest(client) == ""


def test_two_browsers_of_a_person_are_told_once(rosa: Client, reviewer: User, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    leave(reviewer)
    other = Client()
    other.force_login(reviewer)
    assert digest(rosa) and digest(other) == ""
