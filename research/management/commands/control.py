"""`manage.py control`: the control worker. Advances threads when rung, sweeps for what was not."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand

from research import tasks
from runners.queues import beat, consumer_options, control

SWEEP_SECONDS = 3.0
LONGEST_GAP = 30.0  # a laptop that slept for a night has not searched for a night
THREADS = 2


class Command(BaseCommand):
    help = "Run the control worker: propose, implement, measure, judge, learn, merge."
    requires_system_checks = []  # they would load every page into this process

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        consumer = control.create_consumer(**consumer_options(workers=THREADS))
        consumer.start()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        last = time.monotonic()
        while True:
            beat()
            now = time.monotonic()
            tasks.sweep(searched=min(now - last, LONGEST_GAP))
            last = now
            if stopping.wait(SWEEP_SECONDS):
                break
        consumer.stop(graceful=True)
