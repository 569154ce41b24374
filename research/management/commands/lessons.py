"""`manage.py lessons export PROJECT --out FILE` and `import FILE --project P`: what was learned, from lab to lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research.models import AuditEntry, Project
from research.models.audit import CONSOLE
from research.models.lesson_record import LessonFileError, LessonRecord, take_in_all

MOST_LINES = 100_000


class Command(BaseCommand):
    help = "Write a project's lessons as JSON lines, or take such a file into a project; importing again adds nothing."

    def add_arguments(self, parser: Any) -> None:
        acts = parser.add_subparsers(dest="act", required=True, metavar="export | import")
        export = acts.add_parser("export", help="write what counts of a project's lessons")
        export.add_argument("project")
        export.add_argument("--out", required=True, metavar="FILE", help="JSON lines, one lesson each")
        take_in = acts.add_parser("import", help="take lessons into a project of the same benchmark")
        take_in.add_argument("file", metavar="FILE")
        take_in.add_argument("--project", required=True)
        take_in.add_argument(
            "--binding", action="store_true", help="let dead ends and discards among them refuse proposals here too"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            names = ", ".join(Project.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"no project named {options['project']!r}; there are: {names}", returncode=2)
        if options["act"] == "export":
            self.export(project, Path(options["out"]))
        else:
            self.take_in(project, Path(options["file"]), options["binding"])

    def export(self, project: Project, out: Path) -> None:
        """Written beside and moved, so that nothing half-written stays."""
        rows = project.lessons.current().select_related("project").order_by("pk")
        beside = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="utf-8") as file:
                for row in rows.iterator(chunk_size=500):
                    file.write(f"{LessonRecord.of(row).line()}\n")
            beside.replace(out)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CommandError(f"cannot write {out}: {error.strerror}", returncode=2) from error
        self.stdout.write(f"{rows.count()} lessons of {project} in {out}")

    def take_in(self, project: Project, path: Path, binding: bool) -> None:
        try:
            records = list(_read(path))
            new = take_in_all(project, records, binding)
        except LessonFileError as error:
            raise CommandError(f"{path}: {error}; nothing was imported", returncode=2) from error
        except UnicodeDecodeError as error:
            raise CommandError(f"{path} is no UTF-8 text; nothing was imported", returncode=2) from error
        except OSError as error:
            raise CommandError(f"cannot read {path}: {error.strerror}", returncode=2) from error
        AuditEntry.of_nobody(CONSOLE, "import lessons", project, lessons=new, binding=binding, file=path.name)
        self.stdout.write(f"{new} lessons are new in {project}; {len(records) - new} were there already")


def _read(path: Path) -> Iterator[LessonRecord]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if number > MOST_LINES:
                raise LessonFileError(f"a file may have {MOST_LINES} lines")
            try:
                yield LessonRecord.parse(line)
            except LessonFileError as error:
                raise LessonFileError(f"line {number}: {error}") from error
