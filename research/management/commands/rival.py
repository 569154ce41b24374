"""`manage.py rival PROJECT --files FOLDER`: a tree from elsewhere, measured beside the champion under the same rule."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.loop.rival import bring, read_tree
from research.management.commands.campaign import process_began
from research.management.commands.transfer import measure_now
from research.management.embedded import choose_data
from research.management.named import project_named
from research.models import Experiment, NotMergeable, Project, Verdict


class Command(BaseCommand):
    help = (
        "Bring a tree that follows the contract of candidates, or a program of the public one-file format, and measure "
        "it against the champion. Never merged."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        parser.add_argument(
            "--files",
            type=Path,
            metavar="FOLDER",
            help="train.py, model.py and their files; or a train.py over prepare.py",
        )
        parser.add_argument("--name", default="", help="what it is called here (default: the folder's name)")
        parser.add_argument("--pairs", type=int, default=6, help="against the champion (default 6)")
        parser.add_argument("--run", action="store_true", help="measure it now, on this machine; nothing else is begun")
        parser.add_argument("--sitting", type=float, metavar="MINUTES", help="with --run: end this call by then")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        began = process_began()
        choose_data(options["data"])
        project = project_named(options["project"])
        if options["files"] is not None:
            name = options["name"] or options["files"].resolve().name
            if not re.fullmatch(r"[\w. +-]{1,60}", name) or name in ("start", "champion"):
                raise CommandError(f"{name!r} is no name: use letters, digits, spaces, . + - _", returncode=2)
            try:
                bring(project, name, read_tree(options["files"], project), options["pairs"])
            except (NotMergeable, OSError) as error:
                raise CommandError(str(error), returncode=2) from error
        if options["run"]:
            measure_now(project, options["sitting"], began)
        else:
            tasks.advance_project(project.pk)
        rows = [row_of(experiment) for experiment in rivals_of(project)]
        if not options["json"]:
            self._show(rows, project.contract.metric.unit)
        self.stdout.write(json.dumps({"project": project.name, "rivals": rows}))

    def _show(self, rows: list[dict[str, Any]], unit: str) -> None:
        for row in rows:
            verdict = row["verdict"] or f"{row['pairs']} of {row['wanted']} pairs"
            effect = "" if row["effect"] is None else f" {row['effect']:+.4g} {unit} against the champion"
            self.stdout.write(f"{row['name']}: {verdict}{effect}")
            for finding in row["findings"]:
                self.stdout.write(f"  {finding['severity']}: {finding['message']}")


def rivals_of(project: Project) -> list[Experiment]:
    return list(project.experiments.filter(purpose=Experiment.Purpose.RIVAL).order_by("number"))


def row_of(experiment: Experiment) -> dict[str, Any]:
    """As JSON; the effect is of the rival over the champion, positive is better."""
    verdict = Verdict.objects.filter(experiment=experiment).first()
    return {
        "name": experiment.label,
        "experiment": experiment.number,
        "commit": experiment.candidate_commit,
        "champion": experiment.baseline_commit,
        "pairs": len(experiment.complete_pairs()),
        "wanted": experiment.wanted_pairs,
        "scores": [list(pair) for pair in experiment.scores()],
        "verdict": verdict.kind if verdict else None,
        "reason": verdict.reason if verdict else None,
        "effect": verdict.effect if verdict else None,
        "low": verdict.low if verdict else None,
        "high": verdict.high if verdict else None,
        "findings": list(experiment.findings.order_by("pk").values("kind", "severity", "message")),
    }
