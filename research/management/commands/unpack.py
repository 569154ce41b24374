"""`manage.py unpack FILE`: a project that was packed on another machine goes on here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.management.embedded import choose_data, migrate
from research.management.moving import NotMovable
from research.management.moving.unpacking import unpack
from research.models import NoiseFloor, Verdict


class Command(BaseCommand):
    help = (
        "Unpack a project that `pack` wrote; `campaign` with the same arguments, or the running lab, goes on with it."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--replace", action="store_true", help="put it in the place of its older copy here")
        parser.add_argument("--without-data", action="store_true", help="even where its text is not prepared here")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")

    def handle(self, *args: Any, **options: Any) -> None:
        choose_data(options["data"])
        migrate()
        try:
            project = unpack(options["file"], options["replace"], options["without_data"])
        except NotMovable as error:
            raise CommandError(str(error), returncode=2) from error
        tasks.advance_project(project.pk)
        floors = [floor for preset in project.measured_presets
                  for floor in NoiseFloor.objects.filter(**project.noise_key_at(preset))]  # fmt: skip
        self.stdout.write(json.dumps({
            "project": project.name, "state": project.state, "champion": project.champion,
            "verdicts": Verdict.objects.filter(experiment__project=project).count(),
            "noise_floors": [str(floor) for floor in floors],
        }))  # fmt: skip
