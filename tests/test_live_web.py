"""The live path through the real web process: a browser that loses its socket, or the server, misses nothing."""

from __future__ import annotations

import asyncio

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from research.models import Membership
from tests.bench.ingest import leased_trials
from tests.bench.live import Browser, Frames
from tests.bench.web import Web
from tests.live_play import in_thread, session_of, store

pytestmark = pytest.mark.django_db(transaction=True)
METRICS = ("loss", "val/loss", "lr", "grad_norm")


@pytest.fixture
def web():
    with Web(DJANGO_SETTINGS_MODULE="tests.settings", TESTS_DATABASE=str(connection.settings_dict["NAME"])) as web:
        yield web


@pytest.fixture
def leases():
    return leased_trials(2)


@pytest.fixture
def tab(web, leases):
    vera = User.objects.create_user("vera")
    Membership.objects.create(user=vera)
    topics = [f"trial:{lease.trial.public_id}" for lease in leases]
    return Browser(web, f"{settings.SESSION_COOKIE_NAME}={session_of(vera)}", topics, Frames())


class Watching:
    """The browser's socket while the block lasts; at its end the connection is cut without a word."""

    def __init__(self, tab):
        self.tab = tab

    async def __aenter__(self):
        self.socket = await self.tab.open()
        self.task = asyncio.create_task(self.tab.watch(self.socket))

    async def __aexit__(self, *exception):
        self.task.cancel()
        self.socket.transport.abort()
        await asyncio.gather(self.task, return_exceptions=True)


async def has_all(tab, rows):
    async with asyncio.timeout(30):
        while tab.lost(rows):
            await asyncio.sleep(0.01)


async def emit(leases, first, last):
    for at in range(first, last, 50):
        for lease in leases:
            await in_thread(store, lease, at, 50, *METRICS)


def test_a_browser_that_loses_its_socket_and_its_server_gets_every_point_once(web, leases, tab):
    async def watch():
        async with Watching(tab):
            await emit(leases, 0, 500)
            await has_all(tab, 500)
        await emit(leases, 500, 5_000)
        async with Watching(tab):
            await emit(leases, 5_000, 5_500)
            await has_all(tab, 5_500)
            await asyncio.to_thread(web.kill)  # kill -9
            await emit(leases, 5_500, 6_000)
        await asyncio.to_thread(web.start)
        async with Watching(tab):
            await has_all(tab, 6_000)

    asyncio.run(watch())
    assert (tab.gaps, tab.duplicates) == (0, 0)


def test_an_outsider_gets_no_point(web, leases):
    async def watch():
        socket = await outsider.open()
        try:
            return {(await asyncio.wait_for(socket.recv(), 10))[:12] for _ in range(3)}
        finally:
            socket.transport.abort()

    otto = User.objects.create_user("otto")
    topics = [f"trial:{lease.trial.public_id}" for lease in leases]
    outsider = Browser(web, f"{settings.SESSION_COOKIE_NAME}={session_of(otto)}", topics, Frames())
    assert asyncio.run(watch()) == {'{"hello":1,"', '{"refused":"'}
