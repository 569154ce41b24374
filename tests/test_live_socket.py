"""The live socket: who may open it, what it tells to whom, and what it makes of nonsense."""

from __future__ import annotations

import asyncio
import json

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from hypothesis import given
from hypothesis import strategies as st

from research.consumers import BURST
from research.live import hub as hubs
from research.live.messages import MAX_MESSAGE, MAX_TOPICS, BadMessage, parse
from research.live.sockets import REFUSAL
from research.live.tail import MAX_EVENTS
from research.models import Event, Experiment, Membership, Project, Thread
from research.models.ids import new_id
from tests.bench.ingest import leased_trials
from tests.live_play import Tab, in_thread, session_of, store

pytestmark = pytest.mark.django_db(transaction=True)


def make_project(name):
    project = Project.objects.create(
        name=name, benchmark="nanochat", preset="cpu", start="vanilla", data_id="none", rule={}
    )
    thread = Thread.objects.create(project=project, number=1, researcher="catalogue", head="0" * 40)
    Experiment.objects.create(
        key=new_id(), project=project, thread=thread, number=1, baseline_commit="0" * 40, candidate_commit="1" * 40,
        rule={},
    )  # fmt: skip
    return project


def topics_of(project):
    thread, experiment = project.threads.get(), project.experiments.get()
    return [
        f"project:{project.public_id}", f"thread:{thread.public_id}", f"experiment:{experiment.public_id}",
    ]  # fmt: skip


@pytest.fixture
def mine():
    return make_project("mine")


@pytest.fixture
def theirs():
    return make_project("theirs")


@pytest.fixture
def vera(mine):
    """A viewer of one project."""
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user, project=mine)
    return user


@pytest.fixture
def session(vera):
    return session_of(vera)


def play(script, *arguments):
    return asyncio.run(script(*arguments))


# Who may open it


async def opened(session, origin="http://localhost"):
    """The closing code, or what the socket says first."""
    async with Tab(session, origin) as tab:
        return await tab.hear()


def test_a_member_is_greeted_with_the_newest_event(session, mine):
    Event.record(Event.Kind.NOTE, project=mine)
    assert play(opened, session) == {"hello": 1, "seq": Event.objects.head()}


@pytest.mark.parametrize("session_key", [None, "", "never-was-a-session", "ü" * 300])
def test_nobody_without_a_session_gets_in(session_key):
    assert play(opened, session_key) == {"closed": 4401}


def test_a_person_who_was_deactivated_does_not_get_in(session, vera):
    User.objects.filter(pk=vera.pk).update(is_active=False)
    assert play(opened, session) == {"closed": 4401}


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:3000", "https://localhost.evil.example", "null", "", "http://["]
)
def test_a_page_of_another_origin_does_not_get_in(session, origin):
    assert play(opened, session, origin) == {"closed": 4403}


# What changed, and for whom


def test_an_event_rings_for_its_topics(session, mine):
    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["lab", "machines", *topics], since=0)
            assert (await tab.text("changed"))["changed"] == sorted(["lab", topics[0]])
            await in_thread(record, Event.Kind.VERDICT)
            changed = await tab.text("changed")
            assert changed == {"changed": sorted(["lab", *topics]), "seq": 2}
            await tab.say(watch=["review"], since=2)
            await tab.heard()
            await in_thread(record, Event.Kind.VERDICT)
            await in_thread(record, Event.Kind.MERGED)
            assert await tab.text("changed") == {"changed": ["review"], "seq": 4}
            assert await tab.heard() == {"pong": 1, "seq": 4}

    def record(kind):
        Event.record(kind, experiment=mine.experiments.get())

    topics = topics_of(mine)
    Event.record(Event.Kind.NOTE, project=mine)
    play(watch)


def test_events_of_a_project_are_for_those_who_may_see_it(session, mine, theirs):
    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["lab", *topics_theirs], since=0)
            refused = {(await tab.text("refused"))["refused"] for _ in topics_theirs}
            assert refused == set(topics_theirs)
            await in_thread(lambda: Event.record(Event.Kind.NOTE, project=theirs))
            assert await tab.is_silent()
            await in_thread(lambda: Event.record(Event.Kind.MACHINE))
            assert await tab.text("changed") == {"changed": ["lab"], "seq": 2}

    topics_theirs = topics_of(theirs)
    play(watch)


def test_a_project_that_is_new_rings_at_once_for_those_who_may_see_it(session, vera):
    def begin():
        project = make_project("new")
        Membership.objects.create(user=vera, project=project)
        Event.record(Event.Kind.NOTE, project=project)

    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["lab"], since=0)
            await tab.heard()
            await in_thread(begin)
            assert (await tab.text("changed"))["changed"] == ["lab"]

    play(watch)


@pytest.mark.parametrize(("since", "events"), [(10**9, 1), (1, MAX_EVENTS + 5)])
def test_after_a_long_absence_everything_watched_has_changed(session, mine, theirs, since, events):
    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["review", *topics], since=since)
            return await tab.text("changed")

    for _ in range(events):
        Event.record(Event.Kind.MACHINE)
    topics = topics_of(mine)
    assert play(watch) == {"changed": sorted(["review", *topics]), "seq": events}


def test_what_is_unknown_and_what_is_not_mine_are_refused_in_the_same_words(session, mine):
    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["nothing", "trial:x", "project:x", "lab:x", ":", "thread:"], since=0)
            for topic in [":", "lab:x", "nothing", "project:x", "thread:", "trial:x"]:
                assert await tab.text("refused") == {"refused": topic, "why": REFUSAL}
            await tab.follow("trial:x", "lab", foreign)
            for topic in sorted(["lab", "trial:x", foreign]):
                assert await tab.text("refused") == {"refused": topic, "why": REFUSAL}
            await in_thread(store, lease, 0, 5)
            assert await tab.is_silent()

    (lease,) = leased_trials(1)
    foreign = f"trial:{lease.trial.public_id}"
    play(watch)


# What ends while it is open


def test_a_membership_that_ends_ends_its_streams(session, vera, monkeypatch):
    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=["lab", project], since=10)
            await tab.follow(topic)
            await tab.until(lambda: tab.count(topic) == 5)
            await in_thread(Membership.objects.filter(project=lease.trial.project).delete)
            refused = {(await tab.text("refused"))["refused"] for _ in range(2)}
            assert refused == {project, topic}
            await in_thread(store, lease, 5, 5)
            assert await tab.is_silent()

    monkeypatch.setattr(hubs, "RECHECK", 0.2)
    (lease,) = leased_trials(1)
    Membership.objects.create(user=vera, project=lease.trial.project)
    store(lease, 0, 5)
    project, topic = f"project:{lease.trial.project.public_id}", f"trial:{lease.trial.public_id}"
    play(watch)


def sign_out(user):
    Session.objects.all().delete()


def deactivate(user):
    User.objects.filter(pk=user.pk).update(is_active=False)


def change_password(user):
    user.set_password("another")
    user.save()


@pytest.mark.parametrize("end", [sign_out, deactivate, change_password])
def test_a_session_that_ends_closes_the_socket(session, vera, monkeypatch, end):
    async def watch():
        async with Tab(session) as tab:
            assert await tab.text("hello")
            await in_thread(end, vera)
            await tab.until(lambda: tab.closed is not None)
            return tab.closed

    monkeypatch.setattr(hubs, "RECHECK", 0.2)
    assert play(watch) == 4401


# Nonsense

NONSENSE = [
    " ", "{", "[]", "null", "1", '"watch"', "{}", '{"watch": 1}', '{"watch": {"lab": 1}}', '{"watch": [1]}',
    '{"watch": [""]}', '{"watch": ["a\\nb"]}', '{"watch": ["lab"], "since": -1}', '{"watch": ["lab"], "since": 1.5}',
    '{"watch": ["lab"], "since": true}', '{"watch": ["lab"], "since": 1e400}', '{"watch": ["lab"], "since": NaN}',
    '{"watch": ["lab"], "since": 99999999999999999999}',
    json.dumps({"watch": [f"t{n}" for n in range(MAX_TOPICS + 1)]}),
    json.dumps({"watch": ["x" * 101]}), '{"points": []}', '{"points": {"trial:x": 1}}', '{"points": {"trial:x": null}}',
    '{"points": {"trial:x": {"cursor": []}}}', '{"points": {"trial:x": {"cursor": {"loss": 1}}}}',
    '{"points": {"trial:x": {"generation": null, "cursor": {}}}}', '{"points": {"trial:x": {"generation": -1}}}',
    '{"points": {"trial:x": {"generation": 1, "cursor": {"loss": "1"}}}}', '{"ack": "1"}', '{"ack": 1}', '{"ack": -1}',
    '{"ping": []}', "[" * 100_000, "9" * 5_000, " " * (MAX_MESSAGE + 1),
]  # fmt: skip


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda text: text[:40])
def test_a_message_that_cannot_be_read_costs_one_error_and_nothing_else(session, nonsense):
    async def watch():
        async with Tab(session) as tab:
            await tab.text("hello")
            await tab.socket.send_to(text_data=nonsense)
            error = await tab.text("error")
            assert len(error["error"]) < 200
            assert await tab.heard()
            assert sum("error" in text for text in tab.texts) == 1

    play(watch)


def test_binary_messages_are_not_read(session):
    async def watch():
        async with Tab(session) as tab:
            await tab.socket.send_to(bytes_data=b"\x00\xff")
            return await tab.text("error")

    assert play(watch) == {"error": "binary messages are not read"}


KEYS = st.sampled_from(["watch", "points", "ack", "ping", "since", "cursor", "generation", "trial:x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(LEAVES, lambda each: st.lists(each) | st.dictionaries(KEYS, each)).map(json.dumps)


@given(st.text() | JSON)
def test_no_text_does_anything_else_than_parse_or_be_refused(text):
    try:
        parse(text)
    except BadMessage as error:
        assert "\n" not in str(error)


def test_a_flood_of_messages_closes_the_socket(session):
    async def watch():
        async with Tab(session) as tab:
            for number in range(4 * BURST):
                await tab.say(ping=number)
            await tab.until(lambda: tab.closed is not None)
            return tab.closed

    assert play(watch) == 4429
