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
from runners.device import gpus, missing, processor
from runners.gpu_worker import GpuWorker
from runners.lab import Lab
from runners.queues import consumer_options, machine_queue
from runners.sandbox import SandboxBroken
from runners.slot import cpu_slots, gpu_slots
from runners.worker import Worker


class Command(BaseCommand):
    help = "Attach this machine to the lab as a worker."
    requires_system_checks = []  # they would load every page into this process

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--name", default=socket.gethostname(), help="the machine's name in the lab")
        parser.add_argument(
            "--devices", default="cpu", help="`cpu` (one slot a core, at most two), or `cuda:N` (one slot, on GPU N)"
        )
        parser.add_argument(
            "--until", type=float, metavar="TIME", help="begin nothing that lasts longer (Unix seconds)"
        )
        parser.add_argument("--warm", metavar="BENCHMARK", help="get ready for this benchmark before it is asked for")

    def _device(self, asked: str) -> tuple[str, int]:
        """ "cpu" or "cuda", and which one. Raises CommandError where this machine has no such device."""
        if asked == "cpu":
            return "cpu", 0
        if not re.fullmatch(r"cuda(:\d+)?", asked):
            raise CommandError(f"--devices must be cpu or cuda:N, not {asked!r}", returncode=2)
        number = int(asked.partition(":")[2] or 0)
        if why := missing("cuda"):
            raise CommandError(why, returncode=2)
        if number >= len(gpus()):
            raise CommandError(f"there is no GPU {number}; this machine has {len(gpus())}", returncode=2)
        return "cuda", number

    def handle(self, *args: Any, **options: Any) -> None:
        if not re.fullmatch(r"[\w.-]{1,64}", options["name"]):
            raise CommandError(f"{options['name']!r} is no machine name: use letters, digits, . _ -", returncode=2)
        kind, number = self._device(options["devices"])
        slots = cpu_slots() if kind == "cpu" else gpu_slots(number)
        model = processor()
        about = {"processor": model, "devices": [kind]}
        machine_class = f"cpu: {model}, {len(slots)} slots"
        if kind == "cuda":
            about["gpu"] = gpus()[number].name
            machine_class = f"cuda: {about['gpu']}"
        make, at_once = (Worker, len(slots)) if kind == "cpu" else (GpuWorker, 1)
        worker = make(Lab(options["name"], machine_class, at_once, about, options["until"]), slots)
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
