"""The overview: what needs a person, what happened meanwhile, what goes on; each to those who may see it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from research.models import Event, Machine, Preferences, Project, Role, Thread
from research.views.now import now_line
from research.views.overview_board import OverviewBoard
from tests.cast import begin, person
from tests.stage import Stage

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from tests.cast import World

PARTS = ("line", "needs", "frontiers", "wall", "machines", "lessons")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def rosa(reviewer: User) -> Client:
    return client_of(reviewer)


def text_of(client: Client, url: str = "/") -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def test_an_empty_lab_says_what_to_do(member: User) -> None:
    page = text_of(client_of(member))
    assert "No project yet" in page and 'href="/projects/new/"' in page
    assert "manage.py attach" in page and "Nothing waits for you" in page


def test_while_the_text_is_fetched_the_page_says_so(member: User) -> None:
    Event.record(Event.Kind.NOTE, "fetching the text that the demo project learns from, 11 MB")
    assert "Fetching the text that the demo project learns from, 11 MB" in text_of(client_of(member))


def test_a_viewer_is_offered_no_new_project(db: None) -> None:
    assert 'href="/projects/new/"' not in text_of(client_of(person("vera", Role.VIEWER)))


def test_an_open_request_a_halt_a_silent_machine_and_a_spent_budget_need_a_person(
    rosa: Client, project: Project, thread: Thread, world: World
) -> None:
    request = world.gain(thread, "alpha")
    page = text_of(rosa, "/?part=needs")
    assert f"/review/{request.public_id}/" in page and "over 4 pairs" in page
    thread.halt("Traceback\nValueError: <b>no</b> such file\n")
    Machine.objects.update(seen=timezone.now() - timedelta(minutes=2))
    Project.objects.update(max_trials=12)
    page = text_of(rosa, "/?part=needs")
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; such file" in page and f"/t/{thread.public_id}/" in page
    assert "Machine quick" in page and "of its trials is spent" in page
    project.pause("the owner is away")
    assert "the owner is away" in text_of(rosa, "/?part=needs")


def test_a_request_that_the_policy_will_merge_needs_nobody(
    rosa: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    Project.objects.update(auto_approve=True)
    world.machine.beat()
    assert "Nothing waits for you" in text_of(rosa, "/?part=needs")


def test_the_wall_shows_every_live_thread_with_its_now_line(
    rosa: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    wall = text_of(rosa, "/?part=wall")
    assert "Thread 1" in wall and "1 verdict, 1 improved: head at +" in wall
    assert now_line(thread).text in wall
    project.finish()
    assert "No thread is searching" in text_of(rosa, "/?part=wall")


def test_a_machine_shows_how_busy_it_was(rosa: Client, world: World) -> None:
    world.machine.beat()
    assert "quick" in text_of(rosa, "/?part=machines") and "idle" in text_of(rosa, "/?part=machines")
    Machine.objects.update(seen=timezone.now() - timedelta(days=3))
    assert "No machine is attached" in text_of(rosa, "/?part=machines")


def test_nobody_sees_projects_of_others(project: Project, thread: Thread, world: World, outsider: User) -> None:
    request = world.gain(thread, "alpha")
    page = text_of(client_of(outsider))
    assert "/p/question/" not in page and request.public_id not in page and thread.public_id not in page
    other = begin("other")
    seen = OverviewBoard(person("vera", Role.VIEWER, other))
    assert [row.name for row in seen.projects] == ["other"] and not seen.lessons


def test_who_is_not_signed_in_is_sent_to_sign_in(db: None) -> None:
    assert "/sign-in/" in Client().get("/")["Location"]


def test_after_an_absence_the_page_tells_what_happened_for_a_while(
    rosa: Client, reviewer: User, project: Project, thread: Thread, world: World
) -> None:
    assert "Since you were away" not in text_of(rosa), "nothing to tell on a first visit"
    world.gain(thread, "alpha")
    assert "Since you were away" not in text_of(rosa), "a person who stays knows"
    Preferences.objects.filter(user=reviewer).update(seen=timezone.now() - timedelta(hours=8))
    page = text_of(rosa)
    assert "Since you were away" in page and "for 8 h 0 min" in page and "at best +" in page
    assert "Since you were away" in text_of(rosa), "a reload keeps it"
    session = rosa.session
    session["back_at"] = (timezone.now() - timedelta(hours=1)).isoformat()
    session.save()
    assert "Since you were away" not in text_of(rosa)


def test_a_refreshed_part_is_no_visit(rosa: Client, reviewer: User) -> None:
    text_of(rosa)
    long_ago = timezone.now() - timedelta(hours=8)
    Preferences.objects.filter(user=reviewer).update(seen=long_ago)
    text_of(rosa, "/?part=needs")
    assert Preferences.objects.get(user=reviewer).seen == long_ago


@pytest.mark.parametrize("part", PARTS)
def test_every_part_stands_alone(rosa: Client, project: Project, thread: Thread, world: World, part: str) -> None:
    world.gain(thread, "alpha")
    assert "<html" not in text_of(rosa, f"/?part={part}")
    assert rosa.get("/?part=nonsense").status_code == 404


def test_an_unchanged_frontier_is_not_sent_again(rosa: Client, project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    have = text_of(rosa, "/?part=frontiers").split("have=")[1].split('"')[0]
    assert rosa.get(f"/?part=frontiers&have={have}").status_code == 204
    project.pause()
    assert rosa.get(f"/?part=frontiers&have={have}").status_code == 200


def test_the_page_costs_few_queries_however_many_threads(rosa: Client, toy: None, db: None) -> None:
    begin("narrow", threads=1)
    text_of(rosa)
    with CaptureQueriesContext(connection) as queries:
        text_of(rosa)
    few = len(queries)
    Project.objects.all().delete()
    begin("wide", threads=20)
    text_of(rosa)
    with CaptureQueriesContext(connection) as queries:
        text_of(rosa)
    assert len(queries) <= few and few <= 60
