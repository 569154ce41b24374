"""`manage.py import_autoresearch`: take over results.tsv and branch of the public autoresearch program."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from benchmarks.contract import ContractError
from benchmarks.data import DataError
from research.loop.begin import Budget, begin_project
from research.loop.import_autoresearch import LONGEST_TABLE, NotReadable, lines_of, plan, read_table, take_over
from research.models import Project
from research.repository import Foreign, GitError


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--results", type=Path, required=True, help="their results.tsv")
        parser.add_argument("--repo", type=Path, required=True, help="their git repository; only looked at")
        parser.add_argument("--branch", default="", help="their branch; the one that is checked out where left out")
        parser.add_argument("--project", required=True, help="name of a project, which is made where it is not there")
        parser.add_argument("--benchmark", default="nanochat", help="of a new project")
        parser.add_argument("--preset", default="cpu", help="of a new project")
        parser.add_argument("--start", default="vanilla", help="of a new project")
        parser.add_argument(
            "--list", action="store_true", help="say what would be taken over; the project must be there"
        )

    def handle(self, **options: Any) -> None:
        try:
            self._import(**options)
        except (NotReadable, GitError, ContractError, DataError, OSError, UnicodeDecodeError) as error:
            raise CommandError(str(error)) from error

    def _import(self, **options: Any) -> None:
        results: Path = options["results"]
        if results.stat().st_size > LONGEST_TABLE:
            raise NotReadable(f"{results} is larger than {LONGEST_TABLE // 1024 // 1024} MiB")
        rows = read_table(results.read_text("utf-8"))
        foreign = Foreign(options["repo"])
        project = Project.objects.filter(name=options["project"]).first()
        if project is None and options["list"]:
            raise CommandError(f"there is no project {options['project']}; without --list it would be made")
        project = project or begin_project(
            options["project"], options["benchmark"], options["preset"], options["start"], [], Budget(),
            auto_approve=False,
        )  # fmt: skip
        made = plan(rows, foreign, options["branch"], project)
        for line in lines_of(made):
            self.stdout.write(line)
        if options["list"]:
            return
        thread = take_over(
            project, None, made, foreign, f"{options['repo'].resolve().name} {options['branch']}".strip()
        )
        self.stdout.write(f"{len(made.rows)} rows are in {thread}; {len(made.missing)} had no commit in the branch")
