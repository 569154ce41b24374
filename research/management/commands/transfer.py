"""`manage.py transfer PROJECT --preset P`: champion against start at other budgets and sizes; quality against time."""

from __future__ import annotations

import json
import signal
import threading
import time
from statistics import fmean
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from benchmarks.contract import ContractError
from research import tasks
from research.loop import noise
from research.loop.transfer import ask, parse_constants, rivals
from research.management.commands.campaign import ENDING_SECONDS, Run, SittingOver, Stopped, process_began
from research.management.embedded import choose_data, embedded_lab
from research.management.named import project_named
from research.management.progress import Progress
from research.management.results import results
from research.models import Experiment, NotMergeable, Project


class Command(BaseCommand):
    help = "Measure the champion against the start under other presets or with other sizes, and show quality over time."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        parser.add_argument("--preset", action="append", default=[], help="measure there; may be given several times")
        parser.add_argument("--pairs", type=int, default=4, help="at each preset (default 4)")
        parser.add_argument(
            "--set", action="append", default=[], metavar="FILE:NAME=VALUE", help="in both arms, as model.py:DEPTH=12"
        )
        parser.add_argument("--rival", help="this rival in the place of the champion")
        parser.add_argument("--run", action="store_true", help="measure it now, on this machine; nothing else is begun")
        parser.add_argument("--sitting", type=float, metavar="MINUTES", help="with --run: end this call by then")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        began = process_began()
        choose_data(options["data"])
        project = project_named(options["project"])
        try:
            asked = self._ask(project, options)
        except (NotMergeable, ContractError, ValueError) as error:
            raise CommandError(str(error), returncode=2) from error
        if options["run"]:
            measure_now(project, options["sitting"], began)
        else:
            tasks.advance_project(project.pk)
        found = results(project)
        if not options["json"]:
            self._show(project, found, asked)
        self.stdout.write(json.dumps(found))

    def _ask(self, project: Project, options: dict[str, Any]) -> list[Experiment]:
        candidate = ""
        if options["rival"]:
            names = {name: commit for commit, name in rivals(project).items()}
            if options["rival"] not in names:
                raise NotMergeable(f"no rival named {options['rival']!r}; there are: {', '.join(names) or 'none yet'}")
            candidate = names[options["rival"]]
        constants = parse_constants(options["set"])
        return [
            ask(project, preset, options["pairs"], constants, candidate, options["rival"] or "")
            for preset in options["preset"]
        ]

    def _show(self, project: Project, found: dict[str, Any], asked: list[Experiment]) -> None:
        unit = project.contract.metric.unit
        for name, rows in found["over_time"].items():
            for row in rows:
                mean, count = fmean(row["scores"]), len(row["scores"])
                at = f"{row['seconds']:8g} s  {mean:.5f} {unit}"
                self.stdout.write(f"  {name:24} {at}  {count} trials  {row['preset']}")
        for name, rows in found["sooner"].items():
            for row in rows:
                self.stdout.write(f"  {name}: {row['words']}")
        for row in found["transfers"]:
            between = "" if row["low"] is None else f" ({row['low']:+.4g} to {row['high']:+.4g})"
            self.stdout.write(f"  {row['label']}: {row['effect']:+.4g}{between} {unit} over {row['pairs']} pairs")
        waiting = Experiment.objects.running().filter(pk__in=[one.pk for one in asked]).count()
        if waiting:
            self.stdout.write(f"{waiting} measurements wait for a machine; the same command shows them later")


def measure_now(project: Project, sitting: float | None, began: float) -> None:
    """Run the lab here until what was asked for is measured; the project is left as it was.

    A verdict needs a noise floor, which a campaign measures: what waits for it alone is left waiting, and said.
    """
    was, stopping = project.state, threading.Event()
    leave_by = None if sitting is None else began + sitting * 60 - ENDING_SECONDS
    until = None if leave_by is None else time.time() + leave_by - time.monotonic()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    wanted = project.experiments.running().filter(purpose__in=(Experiment.Purpose.TRANSFER, Experiment.Purpose.RIVAL))
    with embedded_lab(until=until) as supervisor:
        project.measure_only("only what was asked for is measured")
        tasks.advance_project(project.pk)
        run = Run(project, supervisor, stopping, Progress(project, (sitting or 60) * 60))
        run.leave_by = leave_by
        try:
            run.until(lambda: _settled(project, wanted), "measuring")
        except SittingOver:
            pass
        except Stopped:
            raise SystemExit(130) from None
        finally:
            project.back_to(was)
            run.progress.end()
    if wanted.all().exists() and _settled(project, wanted):
        done, all_of_them = noise.progress(project)
        run.progress.say(
            f"all pairs are measured; a verdict waits for the noise floor ({done} of {all_of_them} trials): "
            "let the campaign go on until it is there"
        )


def _settled(project: Project, running: QuerySet[Experiment]) -> bool:
    """Nothing is left to measure for these, unless a noise floor comes first."""
    (done, wanted), left = noise.progress(project), list(running.all())
    return not left or done < wanted and all(one.is_idle() for one in left)
