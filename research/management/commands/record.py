"""`manage.py record PROJECT --out NAME.json`: what a project measured and merged, as a file, a page and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research.management.embedded import choose_data
from research.management.named import project_named
from research.management.record import NotARecord, check
from research.management.record.files import draw, read, write
from research.management.record.rows import record_of
from research.management.record.words import label


class Command(BaseCommand):
    help = "Write a project's record with its page and figures; with --draw only page and figures, of a record."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project", nargs="?")
        parser.add_argument("--out", type=Path, metavar="FILE.json", help="page and figures go beside it")
        parser.add_argument("--draw", type=Path, metavar="FILE.json", help="of this record, from nothing else")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")

    def handle(self, *args: Any, **options: Any) -> None:
        named = options["project"] is not None and options["out"] is not None
        if named == (options["draw"] is not None):
            raise CommandError("say either PROJECT --out FILE.json or --draw FILE.json", returncode=2)
        target: Path = options["out"] if named else options["draw"]
        if target.suffix != ".json" or not target.parent.is_dir():
            raise CommandError(f"{target} must end in .json and lie in a folder that is there", returncode=2)
        try:
            if named:
                choose_data(options["data"])
                record = record_of(project_named(options["project"]))
                made = write(record, target)
            else:
                record = read(target)
                made = draw(record, target)
        except (NotARecord, OSError) as error:
            raise CommandError(str(error), returncode=2) from error
        found = {"label": label(record), "verdicts": len(record["verdicts"]), "not_reached_again": check.broken(record)}
        self.stdout.write(
            json.dumps({"project": record["project"]["name"], **found, "files": [str(one) for one in made]})
        )
