"""`manage.py ablate PROJECT`: what each change of the champion is worth, measured by leaving it out, one at a time."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.management.named import project_named
from research.models import Ablation, NotMergeable
from research.validation.combine import AblationRow


class Command(BaseCommand):
    help = "Ask for a leave-one-out ablation of the champion, or show it. The running lab measures it."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        parser.add_argument("--pairs", type=int, default=6, help="pairs for each change (default 6)")
        parser.add_argument("--by", metavar="USER", help="who asks: the name of a user of the lab")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["project"])
        person = User.objects.filter(username=options["by"]).first()
        if options["by"] and person is None:
            raise CommandError(f"there is no user {options['by']!r}", returncode=2)
        try:
            ablation = Ablation.ask(project, person, options["pairs"])
        except NotMergeable as error:
            raise CommandError(str(error), returncode=2) from error
        tasks.advance_project(project.pk)
        rows, unit = ablation.rows(), project.contract.metric.unit
        if not options["json"]:
            self.show(ablation, rows, unit)
        found = {"project": project.name, "champion": ablation.champion, "unit": unit, "ended": bool(ablation.ended)}
        self.stdout.write(json.dumps(found | {"rows": [row.to_json() for row in rows]}))

    def show(self, ablation: Ablation, rows: list[AblationRow], unit: str) -> None:
        self.stdout.write(f"without each change of {ablation.champion[:10]}, the champion loses so much {unit}:")
        for row in rows:
            self.stdout.write(f"  {row.label:32} {_said(row, ablation.pairs)}")
        if ablation.ended is None:
            self.stdout.write("the running lab measures it; the same command shows how far it is")


def _said(row: AblationRow, wanted: int) -> str:
    loss = row.loss
    if row.refusal:
        return row.refusal
    if loss.effect is None:
        return f"0 of {wanted} pairs"
    between = f"{loss.low:+.4g} to {loss.high:+.4g}" if loss.low is not None and loss.high is not None else "unbounded"
    shown = {1: "worth it", -1: "does harm", 0: "not shown"}[row.sign]
    return f"{loss.effect:+.4g}  ({between})  {loss.pairs} of {wanted} pairs  {shown}"
