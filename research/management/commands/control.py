"""`manage.py control`: the control worker. Advances threads when rung, sweeps for what was not."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from research import tasks
from runners.queues import consumer_options, control

SWEEP_SECONDS = 3.0
THREADS = 2


class Command(BaseCommand):
    help = "Run the control worker: propose, implement, measure, judge, learn, merge."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        consumer = control.create_consumer(**consumer_options(workers=THREADS))
        consumer.start()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        while not stopping.wait(SWEEP_SECONDS):
            tasks.sweep()
        consumer.stop(graceful=True)
