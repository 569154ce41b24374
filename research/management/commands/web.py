"""`manage.py web`: the pages and the live socket, served by daphne. The only importer of daphne."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

# A browser that is gone is noticed within 20 s: daphne buffers without bound for one that does not read.
PING_SECONDS = 10


class Command(BaseCommand):
    help = "Serve the pages and the live socket."
    requires_system_checks = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--fd", type=int, help="serve a listening socket that `manage.py lab` hands down")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["port"] < 65536:
            raise CommandError("--port must be 1 to 65535", returncode=2)
        # Here and first: it chooses Twisted's reactor, and no other process should pay for it.
        from channels.routing import get_default_application
        from daphne.endpoints import build_endpoint_description_strings
        from daphne.server import Server

        place: dict[str, Any] = {"host": options["host"], "port": options["port"]}
        if options["fd"] is not None:
            place = {"file_descriptor": options["fd"]}
        Server(
            application=get_default_application(),
            endpoints=build_endpoint_description_strings(**place),
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            server_name="",
        ).run()
