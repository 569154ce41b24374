"""`manage.py lab`: the embedded lab: pages, control worker and one local machine worker under one supervisor.

Behind `make run`. The first start makes the first person and lets a task of its own begin the demo project: fetching
its text must not hold up the pages.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from research.management.commands.signin import first_person, link, remember_address
from research.management.embedded import choose_data, embedded_lab
from runners.jail import find_bwrap

TICK_SECONDS = 0.2
LOOPBACK = ("127.0.0.1", "localhost")


class Command(BaseCommand):
    help = "Run the lab on this machine; Ctrl-C stops everything, the same command goes on."
    requires_system_checks = []  # half a second; `make check` asks them

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-demo", action="store_true", help="do not begin the demo project")
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")

    def handle(self, *args: Any, **options: Any) -> None:
        choose_data(options["data"])
        if not 0 < options["port"] < 65536:
            raise CommandError("the port must be 1 to 65535", returncode=2)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, lambda *_: stopping.set())
        host, port = options["host"], options["port"]
        with (
            embedded_lab((host, port), demo=not options["no_demo"]) as supervisor,
            remember_address(address_of(host, port)) as address,
        ):
            self._welcome(address, host)
            while not stopping.wait(TICK_SECONDS):
                for line in supervisor.tick():
                    self.stderr.write(line)
            self.stdout.write("stopping; the same command goes on")

    def _welcome(self, address: str, host: str) -> None:
        """Where it is, how to get in, what is amiss. Nothing more is printed while all is well."""
        person = first_person()
        self.stdout.write(f"Recursive Lab runs at {address}")
        self.stdout.write(f"  sign in as {person.get_username()}: {link(person, address)}")
        self.stdout.write("  the link works once, for 12 hours; `manage.py signin` prints another")
        self.stdout.write(f"  data and logs: {settings.DATA_DIR}")
        if host not in LOOPBACK and "LAB_HOSTS" not in os.environ:
            names = f"LAB_HOSTS={socket.gethostname()},127.0.0.1"
            self.stdout.write(f"  only this machine is let in; for others set {names} and start again")
        if find_bwrap() is None:
            remedy = "`sudo apt-get install bubblewrap`, then start again"
            self.stdout.write(f"  degraded: without bubblewrap trials run in a weaker sandbox; {remedy}")
        self.stdout.write("Ctrl-C stops everything.")
        self.stdout.flush()


def address_of(host: str, port: int) -> str:
    """An address that the lab answers to."""
    names = [name for name in settings.ALLOWED_HOSTS if "*" not in name and not name.startswith((".", "["))]
    name = host if host in names or not names else names[0]
    return f"https://{name}/" if settings.HTTPS else f"http://{name}:{port}/"  # TLS is the business of a proxy
