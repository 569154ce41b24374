"""`manage.py lab`: the embedded lab, supervised: control worker and one local machine worker."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from benchmarks.contract import ContractError
from benchmarks.data import DataError
from research.loop.begin import Budget, begin_project
from research.management.embedded import choose_data, embedded_lab, ensure_data

DEMO = {"name": "demo", "benchmark": "nanochat", "preset": "cpu", "start": "vanilla"}


class Command(BaseCommand):
    help = "Run the lab on this machine; Ctrl-C stops everything, the same command goes on."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-demo", action="store_true", help="do not begin the demo project")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")

    def handle(self, *args: Any, **options: Any) -> None:
        choose_data(options["data"])
        stopping = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        with embedded_lab() as supervisor:
            if not options["no_demo"]:
                self._begin_demo()
            self.stderr.write("the lab is running; Ctrl-C stops it")
            while not stopping.wait(1.0):
                for line in supervisor.tick():
                    self.stderr.write(line)

    def _begin_demo(self) -> None:
        try:
            ensure_data(DEMO["benchmark"])
            begin_project(**DEMO, researchers=["catalogue"] * 2, budget=Budget(), auto_approve=False)
        except (ContractError, DataError) as error:
            raise CommandError(str(error), returncode=2) from error
