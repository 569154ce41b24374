"""`manage.py mcp`: the lab's tools over stdio, for an agent on this machine. The token comes from LAB_TOKEN."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from research.models import ApiToken


class Command(BaseCommand):
    help = "Serve the lab's tools to one agent over stdin and stdout (Model Context Protocol)."
    requires_system_checks = []  # they would load every page into this process

    def handle(self, *args: Any, **options: Any) -> None:
        from research.api.mcp import make

        if ApiToken.of(settings.AGENT_TOKEN) is None:
            raise CommandError("set LAB_TOKEN to a token that opens a project: manage.py token --help", returncode=2)
        print("serving tools on stdin and stdout; end of input stops it", file=sys.stderr)
        make().run("stdio")
