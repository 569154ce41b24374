"""`manage.py fidelity PROJECT`: what the screening preset foretells, over the techniques measured at both."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.loop.fidelity import MEASURED_PAIRS, measure
from research.loop.screens import points_of, relation_of, screens_at
from research.management.named import project_named
from research.management.record.words import relation_words
from research.models import Experiment, NotMergeable, Project
from research.validation.records import LEAST_TECHNIQUES, Relation


class Command(BaseCommand):
    help = "Rank correlation and line between two presets; --measure adds candidates that screening stopped."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        parser.add_argument("--measure", type=int, default=0, metavar="N", help="so many that screening stopped")
        parser.add_argument("--pairs", type=int, default=MEASURED_PAIRS, help="of each of them at the project's preset")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["project"])
        if not project.screen_preset:
            raise CommandError(f"{project.name} screens under its own preset, {project.preset}", returncode=2)
        if options["measure"]:
            try:
                begun = measure(project, options["measure"], options["pairs"])
            except NotMergeable as error:
                raise CommandError(str(error), returncode=2) from error
            tasks.advance_project(project.pk)
            if not options["json"]:
                self.stdout.write(f"{len(begun)} candidates will be measured at {project.preset} by the running lab")
        found = fidelity_of(project)
        if not options["json"]:
            self.show(project, found)
        self.stdout.write(json.dumps(found))

    def show(self, project: Project, found: dict[str, Any]) -> None:
        unit = project.contract.metric.unit
        self.stdout.write(f"gain in {unit} at {project.screen_preset} and at {project.preset}, by technique:")
        for point in found["points"]:
            how = "confirm pairs" if point["was_confirmed"] else "pairs, stopped by screening"
            pairs = f"{point['confirmed_pairs']} {how}"
            self.stdout.write(f"  {point['label']:40} {point['screened']:+.4g}  {point['confirmed']:+.4g}  {pairs}")
        read = found["relation"]
        if read is None:
            self.stdout.write(f"{len(found['points'])} techniques; a relation is read from {LEAST_TECHNIQUES} on")
        else:
            self.stdout.write(relation_words(Relation.from_json(read)))
            self.stdout.write(f"new candidates are screened at {found['screens_at']}")


def fidelity_of(project: Project) -> dict[str, Any]:
    """The points and what they say, as JSON; how many asked-for candidates are still being measured."""
    relation = relation_of(project)
    waiting = project.experiments.running().filter(purpose=Experiment.Purpose.FIDELITY).count()
    return {
        "project": project.name,
        "screen_preset": project.screen_preset,
        "preset": project.preset,
        "unit": project.contract.metric.unit,
        "points": [point.to_json() for point in points_of(project)],
        "relation": relation.to_json() if relation else None,
        "screens_at": screens_at(project) or project.screen_preset,
        "being_measured": waiting,
    }
