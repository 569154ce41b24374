"""`manage.py pack PROJECT --out FILE`: a project's state in one file, to go on with it on another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research.management.moving import NotMovable
from research.management.moving.packing import pack
from research.management.named import project_named

MOST_MIB = 16.0


class Command(BaseCommand):
    help = "Pack a project: rows, repository, lessons and noise floors; curves and logs as far as they fit."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE")
        parser.add_argument("--most-mib", type=float, default=MOST_MIB, help="size of the file (default 16)")

    def handle(self, *args: Any, **options: Any) -> None:
        project, target = project_named(options["project"]), options["out"]
        if not target.parent.is_dir() or target.is_dir():
            raise CommandError(f"{target} cannot be written: name a file in a folder that is there", returncode=2)
        if not 0.1 <= options["most_mib"] <= 4096:
            raise CommandError("--most-mib must be 0.1 to 4096", returncode=2)
        try:
            about = pack(project, target, int(options["most_mib"] * (1 << 20)))
        except (NotMovable, OSError) as error:
            raise CommandError(str(error), returncode=2) from error
        told = {name: value for name, value in about.items() if name != "sha256"}
        if withheld := project.withheld:
            count = f"{len(withheld)} problem{'s' * (len(withheld) != 1)}"
            told["private"] = f"it holds {count} that others wrote: move it, but do not publish it"
        self.stdout.write(json.dumps({"file": str(target), **told}))
