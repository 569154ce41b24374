"""The thread page: what it shows, to whom, and how people steer from it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.models import Event, Experiment, Idea, Project, Role, Thread
from tests.cast import World, go, person, step

PARTS = {
    "head": "thread-head", "now": "now", "curves": "curves", "experiments": "experiments", "events": "events",
    "diff": "diff", "recipe": "recipe", "steered": "steered",
}  # fmt: skip


@pytest.fixture
def address(thread: Thread) -> str:
    return f"/t/{thread.public_id}/"


@pytest.fixture
def member(client: Client, project: Project) -> User:
    """Mira, a member of the project, signed in."""
    mira = person("mira", Role.MEMBER, project)
    client.force_login(mira)
    return mira


@pytest.fixture
def viewer(client: Client, project: Project) -> User:
    vera = person("vera", Role.VIEWER, project)
    client.force_login(vera)
    return vera


def shown(client: Client, url: str, status: int = 200) -> str:
    response = client.get(url)
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


def test_a_gain_is_shown_with_its_pairs_its_verdict_and_the_recipe(
    client: Client, member: User, world: World, thread: Thread, address: str
) -> None:
    world.gain(thread, "alpha")
    text = shown(client, address)
    experiment = thread.experiments.get(verdict__kind="improved")
    assert f"/e/{experiment.public_id}/" in text
    assert "4 measured" in text and "improved" in text and experiment.verdict.reason in text
    assert "another ALPHA" in text  # the recipe, by title
    assert "train.py" in text  # the diff so far
    assert 'class="value">1</span><span class="name">confirmed' in text


def test_every_part_is_the_same_element_alone_as_in_the_page(
    client: Client, viewer: User, world: World, thread: Thread, address: str
) -> None:
    world.gain(thread, "alpha")
    page = shown(client, address)
    for part, wrapper in PARTS.items():
        alone = shown(client, f"{address}?part={part}").lstrip()
        assert f'id="{wrapper}"' in alone[: alone.index(">")], part
        assert f'id="{wrapper}"' in page
    shown(client, f"{address}?part=nonsense", 404)


def test_a_thread_just_begun_says_what_comes_next(client: Client, viewer: User, thread: Thread, address: str) -> None:
    text = shown(client, address)
    assert "proposing the next idea" in text
    assert "No experiment yet" in text and "The head is the start" in text
    go(thread)  # the first idea is measured as soon as a machine comes
    assert "no machine is attached" in shown(client, address)


def test_who_may_not_see_the_project_finds_nothing(
    client: Client, outsider: User, thread: Thread, address: str
) -> None:
    response = client.get(address)
    assert response.status_code == 302 and response["Location"].startswith("/sign-in/")
    client.force_login(outsider)
    shown(client, address, 404)
    shown(client, f"{address}?part=events", 404)
    assert client.post(f"{address}steer/", {"focus": "alpha"}).status_code == 404


def test_a_viewer_reads_the_steering_and_gives_none(client: Client, viewer: User, thread: Thread, address: str) -> None:
    text = shown(client, address)
    assert "Everything is allowed" in text and '<form method="post"' not in text
    assert client.post(f"{address}steer/", {"focus": "alpha"}).status_code == 403
    assert client.post(f"{address}state/", {"act": "pause"}).status_code == 403
    thread.refresh_from_db()
    assert not thread.directives.get("focus") and thread.state == "active"


def test_a_member_steers_and_sees_it_obeyed(client: Client, member: User, thread: Thread, address: str) -> None:
    client.post(f"{address}steer/", {"focus": ["beta"], "forbid": ["delta"], "note": "try <b>this</b>"}, follow=True)
    text = shown(client, f"{address}?part=steered")
    assert "mira" in text and "not obeyed yet" in text and "try &lt;b&gt;this&lt;/b&gt;" in text
    while Event.objects.filter(kind=Event.Kind.OBEYED).count() == 0:
        assert step(thread) is not None
    text = shown(client, f"{address}?part=steered")
    assert "obeyed" in text and "another BETA" in text and "not obeyed yet" not in text


def test_steering_that_means_nothing_is_refused_beside_the_field(
    client: Client, member: User, thread: Thread, address: str
) -> None:
    response = client.post(f"{address}steer/", {"focus": ["alpah"], "note": "kept"})
    text = response.content.decode()
    assert response.status_code == 422
    assert "&#x27;alpah&#x27; is no technique" in text and "perhaps alpha" in text and "kept</textarea>" in text
    both = client.post(f"{address}steer/", {"focus": ["alpha"], "forbid": ["alpha"]})
    assert both.status_code == 422 and "at once" in both.content.decode()


def test_a_member_pauses_and_resumes(client: Client, member: User, thread: Thread, address: str) -> None:
    client.post(f"{address}state/", {"act": "pause"})
    assert Thread.objects.get().state == "paused" and "Resume" in shown(client, address)
    client.post(f"{address}state/", {"act": "resume"})
    assert Thread.objects.get().state == "active"
    assert client.post(f"{address}state/", {"act": "delete"}).status_code == 404


def test_a_halted_thread_shows_its_traceback_as_text(
    client: Client, viewer: User, thread: Thread, address: str
) -> None:
    thread.halt("Traceback:\n  <script>alert(1)</script>\nValueError: <b>no</b>")
    text = shown(client, address)
    assert (
        "ValueError: &lt;b&gt;no&lt;/b&gt;" in text and "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    )
    assert "tries the same step again" in text


def test_what_a_candidate_writes_is_text(
    client: Client, viewer: User, world: World, thread: Thread, address: str
) -> None:
    world.until_verdict(thread)
    hostile = "<img src=x onerror=alert(1)>"
    Idea.objects.update(title=hostile, hypothesis=hostile)
    Event.record(Event.Kind.NOTE, hostile, thread=thread)
    text = shown(client, address)
    assert "<img src=x" not in text and text.count("&lt;img src=x") >= 3


def test_an_unfolded_diff_is_left_alone_until_the_head_moves(
    client: Client, viewer: User, world: World, thread: Thread, address: str
) -> None:
    old = thread.head
    world.gain(thread, "alpha")
    assert client.get(f"{address}?part=diff&head={thread.head}").status_code == 204
    assert "train.py" in shown(client, f"{address}?part=diff&head={old}")
    lines = shown(client, f"{address}?part=file&n=0")
    assert "ALPHA" in lines and 'class="added"' in lines
    shown(client, f"{address}?part=file&n=7", 404)


def test_trials_are_told_only_when_asked_for(
    client: Client, viewer: User, world: World, thread: Thread, address: str
) -> None:
    world.until_verdict(thread)
    assert "screen pair 1" not in shown(client, f"{address}?part=events")
    assert "screen pair 1, candidate: on quick" in shown(client, f"{address}?part=events&all=1")


def test_older_events_are_reached_by_number(client: Client, viewer: User, thread: Thread, address: str) -> None:
    for number in range(60):
        Event.record(Event.Kind.NOTE, f"note {number} of sixty", thread=thread)
    newest = shown(client, f"{address}?part=events")
    assert "note 59 of sixty" in newest and "note 3 of sixty" not in newest
    before = Event.objects.get(text="note 20 of sixty").seq
    older = shown(client, f"{address}?part=events&before={before}")
    assert "note 19 of sixty" in older and "note 20 of sixty" not in older
    assert "data-live" not in older  # the past does not move


def test_the_page_asks_the_database_as_much_with_many_experiments(
    client: Client, member: User, world: World, thread: Thread, address: str, django_assert_max_num_queries: object
) -> None:
    world.until_verdict(thread)
    client.get(address)  # warm: the diff of two commits is kept
    for number in range(100, 140):
        Experiment.objects.create(
            key=f"many-{number}", project=thread.project, thread=thread, number=number, rule=thread.project.rule,
            baseline_commit=thread.head, candidate_commit=thread.head, state=Experiment.State.CANCELLED,
        )  # fmt: skip
    with django_assert_max_num_queries(40):  # type: ignore[operator]
        assert "earlier experiments" in shown(client, address)
    with django_assert_max_num_queries(10):  # type: ignore[operator]
        shown(client, f"{address}?part=experiments")
