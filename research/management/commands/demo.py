"""`manage.py demo`: begin the demo project, and fetch its text first where it is missing. Safe to repeat."""

from __future__ import annotations

import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from benchmarks.contract import ContractError
from benchmarks.data import DataError
from research import tasks
from research.loop.begin import Budget, begin_project
from research.management.commands.signin import first_person
from research.management.embedded import DEMO, DEMO_BENCHMARK, DEMO_PRESET, ensure_data, has_data
from research.models import Event

THREADS = 2


class Command(BaseCommand):
    help = "Begin the demo project: two catalogue threads improve a textbook Transformer on this machine."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a download ends with us
        if not has_data(DEMO_BENCHMARK, DEMO_PRESET):
            note("fetching the text that the demo project learns from, 11 MB")
        try:
            ensure_data(DEMO_BENCHMARK, DEMO_PRESET)
            project = begin_project(
                DEMO, DEMO_BENCHMARK, DEMO_PRESET, "vanilla", ["catalogue"] * THREADS, Budget(), auto_approve=False,
                started_by=first_person(), single_person=True,
            )  # fmt: skip
        except (ContractError, DataError) as error:
            line = " ".join(str(error).split())
            note(f"the demo project waits: {line}")
            raise CommandError(line, returncode=2) from error
        tasks.advance_project(project.pk)
        for thread in project.threads.all():
            tasks.advance_thread(thread.pk)


def note(text: str) -> None:
    """Into the feed, once: a task that fails is tried again and again."""
    newest = Event.objects.filter(kind=Event.Kind.NOTE, project=None).order_by("-seq")[:2]
    if text not in [event.text for event in newest]:
        Event.record(Event.Kind.NOTE, text)
