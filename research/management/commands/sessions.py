"""`manage.py sessions`: the process of the sessions with models. Asks when rung, sweeps for what was not."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.loop.asking import models
from research.researchers.llm.models import HOW, ModelsError
from runners.queues import beat, consumer_options, sessions

SWEEP_SECONDS = 1.0
THREADS = 2


class Command(BaseCommand):
    help = "Carry on the sessions with models, for threads of the researcher llm."
    requires_system_checks = []  # they would load every page into this process

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--threads", type=int, default=THREADS, help="sessions at a time (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = models()
        except ModelsError as error:
            raise CommandError(str(error), returncode=2) from error
        if not found:
            raise CommandError(f"no model is configured: {HOW}", returncode=2)
        if not 1 <= options["threads"] <= 64:
            raise CommandError("--threads must be 1 to 64", returncode=2)
        stopping = threading.Event()
        consumer = sessions.create_consumer(**consumer_options(workers=options["threads"]))
        consumer.start()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        while True:
            beat(sessions)
            tasks.sweep_sessions()
            if stopping.wait(SWEEP_SECONDS):
                break
        consumer.stop(graceful=False)  # a reply under way may take minutes: it is asked for again
