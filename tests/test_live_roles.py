"""Who hears what on the live socket: by role, for every kind of topic, and for no longer than the role lasts."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth.models import User

from research.live import hub as hubs
from research.live.access import GENERAL, KINDS
from research.models import Event, Membership, Role
from tests.bench.ingest import leased_trials
from tests.live_play import Tab, in_thread, session_of, store
from tests.test_live_socket import make_project, play

pytestmark = pytest.mark.django_db(transaction=True)
SECONDS = 3.0  # within which a role that was taken away must end what is open; without news it would take 20 and more

NOW = 10**9  # beyond every event: the answer is that everything has changed, and where the events stand


def person(name, project, role):
    user = User.objects.create_user(name)
    if role:
        Membership.objects.create(user=user, project=project, role=role)
    return user


@pytest.fixture
def lease():
    (lease,) = leased_trials(1)
    return lease


@pytest.fixture
def project(lease):
    return lease.trial.project


def topics_of(lease):
    """One topic of each kind that belongs to a project."""
    trial, experiment = lease.trial, lease.trial.experiment
    thread = trial.project.threads.first() or trial.project.threads.create(
        number=1, researcher="catalogue", head="0" * 40
    )
    rows = {"project": trial.project, "thread": thread, "experiment": experiment, "trial": trial}
    assert rows.keys() == KINDS.keys(), "a new kind of topic: say whose it is"
    return {kind: f"{kind}:{row.public_id}" for kind, row in rows.items()}


async def subscribed(tab, topics):
    """Those of the topics that are not refused."""
    seen = len(tab.texts)
    await tab.say(watch=[topic for topic in topics if not topic.startswith("trial:")], since=NOW)
    await tab.follow(*(topic for topic in topics if topic.startswith("trial:")))
    await tab.heard()
    return set(topics) - {text["refused"] for text in tab.texts[seen:] if "refused" in text}


def test_each_kind_of_topic_is_for_those_who_have_a_role_in_its_project(lease, project):
    async def ask(session):
        async with Tab(session) as tab:
            return await subscribed(tab, [*topics.values(), *GENERAL])

    topics = topics_of(lease)
    other = make_project("other")
    cast = {"otto": (None, 0), "olga": (other, Role.ADMIN)}
    cast |= {f"{role.label}": (project, role) for role in Role} | {"rosa": (None, Role.VIEWER)}
    for name, (where, role) in cast.items():
        session = session_of(person(name, where, role))
        hears = {*topics.values(), *GENERAL} if name not in ("otto", "olga") else set(GENERAL)
        assert play(ask, session) == hears, name


def test_no_event_of_a_project_rings_for_an_admin_of_another(lease, project):
    """Not by its own topics, nor by those of the lab that everybody may watch; of every kind there is."""

    async def watch():
        async with Tab(session) as tab:
            await tab.say(watch=[*GENERAL, *(topic for topic in topics.values() if "trial" not in topic)], since=0)
            await tab.heard()
            for kind in Event.Kind.values:
                await in_thread(lambda kind=kind: Event.record(kind, "secret", experiment=lease.trial.experiment))
            assert await tab.is_silent(0.6)
            assert not [text for text in tab.texts if "changed" in text or "secret" in str(text)]
            await in_thread(lambda: Event.record(Event.Kind.MERGED, project=other))
            assert (await tab.text("changed"))["changed"] == ["lab", "review"]

    topics = topics_of(lease)
    other = make_project("other")
    session = session_of(person("olga", other, Role.ADMIN))
    play(watch)


def take_away(admin, user, project):
    Membership.give(admin, user, project, 0)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_role_that_is_taken_away_ends_what_is_open_within_seconds(lease, project, everywhere):
    async def watch():
        async with Tab(session) as tab:
            assert await subscribed(tab, [*topics.values(), *GENERAL]) == {*topics.values(), *GENERAL}
            await in_thread(take_away, sue, mia, place)
            lost = set()
            async with asyncio.timeout(SECONDS):
                while len(lost) < len(topics):
                    lost.add((await tab.text("refused"))["refused"])
            assert lost == set(topics.values())
            await tab.is_silent(0.3)
            while not await tab.is_silent(0.1):
                await tab.hear()  # a role in all projects is the lab's news, which everybody hears
            await in_thread(lambda: Event.record(Event.Kind.MERGED, experiment=lease.trial.experiment))
            await in_thread(store, lease, 0, 5)
            assert await tab.is_silent(0.6)

    assert hubs.RECHECK > 5 * SECONDS
    topics, place = topics_of(lease), None if everywhere else project
    sue, mia = User.objects.create_superuser("sue"), person("mia", place, Role.MEMBER)
    session = session_of(mia)
    play(watch)


def test_a_role_that_is_given_is_heard_of_by_a_page_that_asks_again(lease, project):
    async def watch():
        async with Tab(session) as tab:
            assert await subscribed(tab, topics.values()) == set()
            await in_thread(Membership.give, sue, otto, project, Role.VIEWER)
            assert await subscribed(tab, topics.values()) == set(topics.values())

    topics = topics_of(lease)
    sue, otto = User.objects.create_superuser("sue"), person("otto", None, 0)
    session = session_of(otto)
    play(watch)
