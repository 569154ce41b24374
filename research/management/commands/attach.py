"""`manage.py attach`: attach this machine. Measures its isolation, then executes trials until it is stopped."""

from __future__ import annotations

import re
import signal
import socket
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from benchmarks.contract import ContractError
from research import tasks
from runners.device import processor
from runners.lab import Lab
from runners.queues import consumer_options, machine_queue
from runners.sandbox import SandboxBroken
from runners.worker import Worker, cores


class Command(BaseCommand):
    help = "Attach this machine to the lab as a worker."
    requires_system_checks = []  # they would load every page into this process

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--name", default=socket.gethostname(), help="the machine's name in the lab")
        parser.add_argument("--devices", default="cpu", help="`cpu` (one slot a core, at most two)")

        parser.add_argument("--warm", metavar="BENCHMARK", help="get ready for this benchmark before it is asked for")

    def handle(self, *args: Any, **options: Any) -> None:
        if not re.fullmatch(r"[\w.-]{1,64}", options["name"]):
            raise CommandError(f"{options['name']!r} is no machine name: use letters, digits, . _ -", returncode=2)
        if options["devices"] != "cpu":
            raise CommandError("only --devices cpu is supported in this version; GPU slots come with the GPU lane")
        cpus = cores()[:2]
        model = processor()
        lab = Lab(options["name"], f"cpu: {model}, {len(cpus)} slots", len(cpus), {"processor": model})
        worker = Worker(lab, list(cpus))
        try:
            isolation = worker.measure_isolation()
            if options["warm"]:
                worker.warm(options["warm"])
        except SandboxBroken as broken:
            raise CommandError(str(broken)) from broken
        except ContractError as error:
            raise CommandError(str(error), returncode=2) from error
        self.stderr.write(f"isolation level {isolation.level} ({isolation.name})")
        tasks.sweep()  # projects that waited for a machine go on now
        consumer = machine_queue(options["name"], worker.wake.set).create_consumer(**consumer_options(workers=1))
        consumer.start()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: worker.stop())
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        while thread.is_alive():
            thread.join(1.0)
        consumer.stop()
