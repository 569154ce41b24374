"""Points on the live socket: every point once and in order, whatever is cut, stalled, restarted or claimed."""

from __future__ import annotations

import asyncio
import math
import threading

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection

from research.live import hub as hubs
from research.live.hub import Hub
from research.live.sockets import CREDIT
from research.live.tail import MAX_POINTS
from research.models import Membership, Series
from runners.points import Stretch
from tests.bench.ingest import leased_trials
from tests.live_play import Tab, in_thread, session_of, store
from tests.point_play import value

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def vera():
    """A viewer of every project."""
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user)
    return user


@pytest.fixture
def session(vera):
    return session_of(vera)


@pytest.fixture
def lease():
    return leased_trials(1)[0]


def topic_of(lease):
    return f"trial:{lease.trial.public_id}"


def finish(lease):
    assert lease.trial.finish(
        lease, machine=lease.machine, score=1.0, isolation_level=0, machine_class="bench", device_seconds=1.0
    )


def values(count):
    return [value(seq) for seq in range(count)]


def test_points_arrive_as_they_are_stored_and_the_end_is_told(session, lease):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic)
            for first in range(0, 50, 10):
                await in_thread(store, lease, first, 10, "loss", "lr")
                await tab.until(lambda first=first: tab.count(topic, "lr") == first + 10)
            await in_thread(finish, lease)
            assert await tab.text("end") == {"end": topic, "state": "ended"}
            assert await tab.is_silent()
            return tab

    topic = topic_of(lease)
    tab = asyncio.run(watch())
    assert tab.got == {(topic, "loss"): values(50), (topic, "lr"): values(50)}
    assert tab.generation == {topic: 1}
    assert tab.frames == list(range(1, len(tab.frames) + 1))


def test_nan_and_infinity_travel_as_they_are(session, lease):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic)
            await tab.until(lambda: tab.count(topic) == 4)
            return tab.got[topic, "loss"]

    topic = topic_of(lease)
    sent = np.array([math.nan, math.inf, -math.inf, 5e-324])
    Series.objects.append([Stretch(lease.trial_id, 1, "loss", 0, np.arange(4).tobytes(), sent.tobytes())])
    assert np.array(asyncio.run(watch())).tobytes() == sent.tobytes()


def test_after_a_cut_the_stream_goes_on_at_the_cursor(session, lease):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic)
            await in_thread(store, lease, 0, 130, "loss", "lr")
            await tab.until(lambda: tab.count(topic, "lr") == 130)
        await in_thread(store, lease, 130, 500, "loss", "lr")
        async with Tab(session) as again:
            again.got = {(topic, "loss"): tab.got[topic, "loss"][:77], (topic, "lr"): tab.got[topic, "lr"]}
            await again.follow(topic, generation=1, cursor={"loss": 77, "lr": 130})
            await again.until(lambda: again.count(topic) == again.count(topic, "lr") == 630)
            assert await again.is_silent()
            return again

    topic = topic_of(lease)
    assert asyncio.run(watch()).got == {(topic, "loss"): values(630), (topic, "lr"): values(630)}


def test_what_was_missed_for_long_comes_in_frames_of_bounded_size(session):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(*topics)
            await tab.until(lambda: all(tab.count(topic, "lr") == count for topic in topics))
            return tab

    count, leases = 30_000, leased_trials(3)
    for lease in leases:
        store(lease, 0, count, "loss", "lr")
        finish(lease)
        assert all(series.compact() for series in Series.objects.filter(trial=lease.trial_id))
    topics = [topic_of(lease) for lease in leases]
    tab = asyncio.run(watch())
    assert len(tab.frames) >= 6 * count / MAX_POINTS
    assert all(got == values(count) for got in tab.got.values())


def test_a_stalled_socket_gets_its_credit_and_no_more_while_another_is_on_time(session, lease):
    async def watch():
        async with Tab(session) as stalled, Tab(session) as other:
            stalled.acks = False
            await stalled.follow(topic)
            await other.follow(topic)
            for first in range(0, 200, 10):
                await in_thread(store, lease, first, 10)
                await other.until(lambda first=first: other.count(topic) == first + 10)
            await stalled.until(lambda: len(stalled.frames) == CREDIT)
            assert await stalled.is_silent()
            assert stalled.count(topic) < 200
            stalled.acks = True
            await stalled.say(ack=CREDIT)
            await stalled.until(lambda: stalled.count(topic) == 200)
            assert stalled.got == other.got

    topic = topic_of(lease)
    asyncio.run(watch())


def test_a_socket_without_credit_for_too_long_is_closed(session, lease, monkeypatch):
    async def watch():
        async with Tab(session) as tab:
            tab.acks = False
            await tab.follow(topic)
            for first in range(CREDIT + 1):
                await in_thread(store, lease, first, 1)
                await asyncio.sleep(hubs.TICK)
            await tab.until(lambda: tab.closed is not None)
            assert (tab.closed, len(tab.frames)) == (4408, CREDIT)

    monkeypatch.setattr(hubs, "STALLED", 0.5)
    topic = topic_of(lease)
    asyncio.run(watch())


def test_a_quiet_stream_is_not_taken_for_a_stalled_socket(session, lease, monkeypatch):
    async def watch():
        async with Tab(session) as tab:
            tab.acks = False
            await tab.follow(topic)
            await in_thread(store, lease, 0, 1)
            await tab.until(lambda: tab.count(topic) == 1)
            assert await tab.is_silent(2 * hubs.HOUSEKEEPING)

    monkeypatch.setattr(hubs, "STALLED", 0.2)
    topic = topic_of(lease)
    asyncio.run(watch())


def test_a_new_lease_restarts_the_stream(session, lease):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic)
            await in_thread(store, lease, 0, 20)
            await tab.until(lambda: tab.count(topic) == 20)
            await in_thread(lease.trial.give_back, lease, "lost")
            assert await tab.text("end") == {"end": topic, "state": "waiting"}
            newer = await in_thread(lease.trial.lease, lease.machine, "another worker")
            await in_thread(store, newer, 0, 3)
            await tab.until(lambda: tab.generation.get(topic) == 2)
            assert {"restart": topic, "generation": 2} in tab.texts
            assert tab.got == {(topic, "loss"): values(3)}

    topic = topic_of(lease)
    asyncio.run(watch())


@pytest.mark.parametrize(
    ("generation", "cursor"), [(1, {"loss": 21}), (1, {"never seen": 1}), (0, {"loss": 5}), (7, {"loss": 5})]
)
def test_a_cursor_that_cannot_be_is_answered_by_a_restart(session, lease, generation, cursor):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic, generation=generation, cursor=cursor)
            assert await tab.text("restart") == {"restart": topic, "generation": 1}
            await tab.until(lambda: tab.count(topic) == 20)

    topic = topic_of(lease)
    store(lease, 0, 20)
    asyncio.run(watch())


def test_naming_a_running_stream_again_repeats_nothing(session):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topics[0])
            await tab.until(lambda: tab.count(topics[0]) == 20)
            await tab.follow(*topics)
            await tab.until(lambda: tab.count(topics[1]) == 20)
            await in_thread(store, leases[0], 20, 5)
            await tab.until(lambda: tab.count(topics[0]) == 25)
            await tab.follow(topics[1])
            await tab.heard()
            await in_thread(store, leases[0], 25, 5)
            await in_thread(store, leases[1], 20, 5)
            await tab.until(lambda: tab.count(topics[1]) == 25)
            assert tab.count(topics[0]) == 25

    leases = leased_trials(2)
    topics = [topic_of(lease) for lease in leases]
    for lease in leases:
        store(lease, 0, 20)
    asyncio.run(watch())


def test_points_outlive_a_database_that_fails_for_a_while(session, lease):
    async def watch():
        async with Tab(session) as tab:
            await tab.follow(topic)
            await in_thread(store, lease, 0, 5)
            await tab.until(lambda: tab.count(topic) == 5)
            await in_thread(rename, "research_trial", "elsewhere")
            assert await tab.is_silent(0.5)
            await in_thread(rename, "elsewhere", "research_trial")
            await in_thread(store, lease, 5, 5)
            await tab.until(lambda: tab.count(topic) == 10)

    def rename(old, new):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    topic = topic_of(lease)
    asyncio.run(watch())


def test_nothing_runs_once_the_last_socket_has_left(session, lease):
    async def watch():
        async with Tab(session), Tab(session):
            assert len(Hub.here().sockets) == 2
            assert "doorbell" in {thread.name for thread in threading.enumerate()}
        assert Hub.here().sockets == set()

    for _ in range(2):
        asyncio.run(watch())
        assert not {thread.name for thread in threading.enumerate()} & {"doorbell", "live_0"}
