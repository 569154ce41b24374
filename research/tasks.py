"""Huey tasks: look the row up, call the loop. The rows are the truth; these only ring."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import close_old_connections
from django.db.models import F
from django.utils import timezone

from benchmarks.contract import load
from benchmarks.data import prepare_command
from research.loop import converse
from research.loop.advance import advance_project_until_idle, advance_until_idle, let_go_of_the_dead
from research.loop.asking import models
from research.models import Machine, Project, Series, Session, Thread, Trial
from runners import preparing
from runners.queues import control, last_beat, machine_bell, sessions

SESSIONS_SILENT = 10.0  # seconds without a sign of life, after which nobody is there to be rung
RINGS = 32
COMPACT_A_SWEEP = 8  # series of ended leases, 13 ms each: never a noticeable pause


@control.task(name="advance_thread")  # type: ignore[untyped-decorator]
def advance_thread(pk: int) -> None:
    close_old_connections()  # a database that was restarted in between
    advance_until_idle(pk)
    ring_machines()
    ring_sessions()


@sessions.task(name="converse")  # type: ignore[untyped-decorator]
def converse_session(pk: int) -> None:
    close_old_connections()
    if converse.converse_until_idle(pk, {spec.name: spec for spec in models()}):
        for thread in Session.objects.exclude(state=Session.State.OPEN).filter(pk=pk).values_list("thread", flat=True):
            advance_thread(thread)


@control.task(name="advance_project")  # type: ignore[untyped-decorator]
def advance_project(pk: int) -> None:
    close_old_connections()
    advance_project_until_idle(pk)
    ring_machines()


@control.task(name="prepare_data")  # type: ignore[untyped-decorator]
def prepare_data(benchmark: str, preset: str) -> None:
    data = load(benchmark).preset(preset).data
    log = preparing.log_of(settings.DATA_DIR, benchmark, data)
    preparing.prepare(log, settings.DATA_DIR, prepare_command(benchmark, preset, data))


def ring_machines() -> None:
    """Wake the machines that have been seen lately, if something waits for them."""
    if Trial.objects.waiting().exists():
        recent = timezone.now() - timedelta(minutes=5)
        for name in Machine.objects.filter(seen__gt=recent).values_list("name", flat=True):
            machine_bell(name)()


def ring_sessions() -> None:
    """Wake the process of the sessions, if one lives and a session can go on; never more than its queue can hold."""
    alive = last_beat(sessions)
    if alive is not None and alive < SESSIONS_SILENT and not sessions.pending_count():
        for pk in Session.objects.askable().order_by("pk").values_list("pk", flat=True)[:RINGS]:
            converse_session(pk)


def sweep_sessions() -> None:
    close_old_connections()
    converse.let_go_of_the_dead()
    ring_sessions()


def sweep(searched: float = 0.0) -> None:
    """Return trials of silent workers and ring for all that can go on. A lost ring costs one sweep interval.

    `searched`: seconds since the last sweep, which every live project has spent searching.
    """
    close_old_connections()
    Project.objects.live().update(wall_seconds=F("wall_seconds") + searched)
    Trial.objects.return_expired()
    let_go_of_the_dead()
    for series in Series.objects.compactable()[:COMPACT_A_SWEEP]:
        series.compact()
    for pk in Project.objects.live().values_list("pk", flat=True):
        advance_project(pk)
    for pk in Thread.objects.advanceable().values_list("pk", flat=True):
        advance_thread(pk)
    ring_machines()
