"""`manage.py campaign`: the whole loop without a browser. The last line of stdout is one JSON object.

Progress goes to stderr. Any stop (Ctrl-C, kill -9, power) is survived: the same command goes on where it was. Nothing
is approved by itself without --auto-approve. The last pairs of every campaign measure the champion against the start on
fresh paired seeds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from benchmarks.contract import ContractError, load
from benchmarks.data import DataError
from research import tasks
from research.loop.asking import models
from research.loop.begin import Budget, begin_project, rule_for, spread
from research.loop.problems import differing
from research.management.embedded import choose_data, embedded_lab, ensure_data, ensure_device
from research.management.progress import Progress
from research.management.summary import closing_scores, summary
from research.models import Ablation, Experiment, NotMergeable, Project, Trial
from research.models.pace import expected_seconds, pair_seconds
from research.models.trial import MOST_LOOKED_AT
from research.researchers import RESEARCHERS
from research.researchers.llm.models import HOW, ModelsError
from research.validation.named import DEFAULT, RULES, RuleError
from runners.lab import PATIENCE
from runners.supervisor import Supervisor

TICK_SECONDS = 1.0
ENDING_SECONDS = 12.0  # of a sitting, for stopping processes and the summary
OLDEST = 600.0  # seconds that a command may have taken to come so far


def process_began() -> float:
    """When this process began, in time.monotonic: before imports, and before it was executed anew for --data."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (age if 0 <= age < OLDEST else 0.0)  # some sandboxes tell no time of start


def _usual_start(benchmark: str, preset: str) -> str:
    """Raises ContractError where there is no such benchmark or preset."""
    starts = load(benchmark).lane_of(preset).starts
    return "vanilla" if "vanilla" in starts else starts[0]


class Stopped(Exception):
    """The person asked to stop."""


class SittingOver(Exception):
    """The time of this call is over; `running` trials did not end in time and will be measured again."""

    def __init__(self, project: Project, running: int) -> None:
        super().__init__(f"{running} trials were cut off" if running else "nothing was cut off")
        self.project, self.running = project, running


class Command(BaseCommand):
    help = "Run a whole campaign on this machine; the same command resumes a stopped one."
    requires_system_checks = []  # they would load every page into this process

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--benchmark", default="nanochat")
        parser.add_argument("--preset", default="cpu")
        parser.add_argument(
            "--screen-preset", help="under which candidates are screened (default: the preset's own word)"
        )
        parser.add_argument("--start", help="where it begins (default: vanilla, or the lane's first)")
        parser.add_argument("--researcher", default="catalogue", choices=sorted(RESEARCHERS))
        parser.add_argument("--rule", default=DEFAULT, choices=list(RULES), help="the rule of evidence")
        parser.add_argument("--target", type=float, help="the score to beat, for the rule speedrun")
        parser.add_argument(
            "--threads",
            type=int,
            default=2,
            help="lines of inquiry side by side; of many problems, on families of their own",
        )
        parser.add_argument("--minutes", type=float, default=25, help="wall time of the search, over all starts")
        parser.add_argument(
            "--sitting", type=float, metavar="MINUTES",
            help="end this call by then: what runs is finished, nothing new begins, the same command goes on",
        )  # fmt: skip
        parser.add_argument("--max-trials", type=int, help="stop after so many trials")
        parser.add_argument("--max-device-seconds", type=float, help="stop after so many seconds of device time")
        parser.add_argument("--max-money", type=Decimal, help="of models: no call is made that could pass it")
        parser.add_argument("--max-tokens", type=int, help="of models: no call is made that could pass it")
        parser.add_argument("--auto-approve", action="store_true", help="merge confirmed gains without a person")
        parser.add_argument("--audit-every", type=int, default=10, help="merges between champion-against-start audits")
        parser.add_argument("--ablate", action="store_true", help="at the end, beyond --minutes: each change left out")
        parser.add_argument("--no-memory", action="store_true", help="to compare: no lessons, repetitions not refused")
        parser.add_argument("--data", help="the data folder (default: $LAB_DATA or ./data)")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        began = process_began()
        choose_data(options["data"])
        self._refuse(options)
        over = None
        try:
            options["start"] = options["start"] or _usual_start(options["benchmark"], options["preset"])
            project = self._run(options, began)
        except (ContractError, DataError, RuleError) as error:
            raise CommandError(str(error), returncode=2) from error
        except (Stopped, KeyboardInterrupt):
            self.stderr.write("stopped; the same command goes on from here")
            raise SystemExit(130) from None
        except SittingOver as ended:
            self.stderr.write(f"the sitting is over, {ended}; the same command goes on from here")
            over, project = ended, ended.project
        result = summary(project) | {"sitting_over": over is not None, "cut_off": over.running if over else 0}
        if not options["json"]:
            for key, value in result.items():
                self.stdout.write(f"{key}: {value}")
        self.stdout.write(json.dumps(result))

    def _refuse(self, options: dict[str, Any]) -> None:
        if not 1 <= options["threads"] <= 32 or options["minutes"] <= 0:
            raise CommandError("--threads must be 1 to 32 and --minutes above 0", returncode=2)
        if options["audit_every"] < 1:
            raise CommandError("--audit-every must be 1 or more", returncode=2)
        if options["sitting"] is not None and not 0 < options["sitting"] < 10_000:
            raise CommandError("--sitting must be minutes above 0", returncode=2)
        if options["researcher"] == "llm":
            self._models()

    def _run(self, options: dict[str, Any], began: float) -> Project:
        stopping, seconds = threading.Event(), options["minutes"] * 60
        rule_for(load(options["benchmark"]), options["preset"], options["rule"], options["target"])
        ensure_device(options["benchmark"], options["preset"])
        ensure_data(options["benchmark"], options["preset"])  # a stopped preparation goes on where it was, too
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stopping.set())
        leave_by = None if options["sitting"] is None else began + options["sitting"] * 60 - ENDING_SECONDS
        until = None if leave_by is None else time.time() + leave_by - time.monotonic()
        with embedded_lab(until=until) as supervisor:
            project = self._begin(options)
            run = Run(project, supervisor, stopping, Progress(project, seconds))
            run.leave_by = leave_by
            run.whole(seconds, options["ablate"])
        return project

    def _models(self) -> None:
        try:
            if not models():
                raise CommandError(f"no model is configured for --researcher llm: {HOW}", returncode=2)
        except ModelsError as error:
            raise CommandError(str(error), returncode=2) from error

    def _begin(self, options: dict[str, Any]) -> Project:
        """The unfinished campaign of the same arguments, or a new one."""
        base = "campaign-{benchmark}-{preset}-{start}-{researcher}-{threads}".format(**options)
        if options["rule"] != DEFAULT:
            base += f"-{options['rule']}"
        if options["target"] is not None:
            base += f"-{options['target']:g}".replace(".", "_")
        if options["no_memory"]:
            base += "-no-memory"
        if options["screen_preset"]:
            base += f"-screened-at-{options['screen_preset']}"
        earlier = Project.objects.filter(name__regex=rf"^{re.escape(base)}-n[0-9]+$")
        unfinished = earlier.exclude(state=Project.State.FINISHED).order_by("-pk").first()
        budget = Budget(options["max_trials"], options["max_device_seconds"], options["minutes"] * 60)
        project = begin_project(
            unfinished.name if unfinished else f"{base}-n{earlier.count() + 1}",
            options["benchmark"], options["preset"], options["start"],
            [options["researcher"]] * options["threads"], budget, options["auto_approve"],
            rule=options["rule"], target=options["target"], screen_preset=options["screen_preset"],
        )  # fmt: skip
        project.auto_approve = options["auto_approve"]
        project.max_wall_seconds = budget.wall_seconds
        project.audit_every = options["audit_every"]
        project.max_money, project.max_tokens = options["max_money"], options["max_tokens"]
        project.memory = not options["no_memory"]
        kept = ["auto_approve", "max_wall_seconds", "audit_every", "max_money", "max_tokens", "memory"]
        project.save(update_fields=kept)
        spread(project)  # again after a crash in between: nobody steered it yet
        project.resume()
        return project


class Run:
    """The phases of a campaign: search, drain, closing measurement. Each can be resumed."""

    def __init__(self, project: Project, supervisor: Supervisor, stopping: threading.Event, progress: Progress) -> None:
        self.project, self.supervisor, self.stopping, self.progress = project, supervisor, stopping, progress
        self.leave_by: float | None = None  # of time.monotonic: when this call has to have ended

    def whole(self, seconds: float, ablate: bool = False) -> None:
        """Search, then drain and close within the time that is kept back for it. An ablation comes on top."""
        drain = min(0.15 * seconds, 10 * self.pair_seconds())
        if not self.closing():
            self.until(lambda: self.over(seconds - self.closing_seconds() - drain), "search")
            self.project.exhaust("the campaign's time is over")
            self.until(lambda: self.project.wall_seconds > seconds - self.closing_seconds() or self.drained(), "drain")
        self.close()
        if ablate:
            self.ablate()
        self.project.finish()
        self.progress.end()

    def over(self, seconds: float) -> bool:
        """No time, no budget or no thread left."""
        stalled = not self.project.threads.filter(state="active").exists()
        return self.project.wall_seconds > seconds or not self.project.is_running or stalled

    def drained(self) -> bool:
        return not self.project.experiments.running().filter(purpose=Experiment.Purpose.COMPARE).exists()

    def closing(self) -> Experiment | None:
        return Experiment.objects.filter(key=f"closing-{self.project.public_id}").first()

    def close(self) -> None:
        """Champion against start on fresh paired seeds."""
        kept = (Experiment.Purpose.CLOSING, Experiment.Purpose.ABLATION)
        for experiment in self.project.experiments.running().exclude(purpose__in=kept):
            experiment.cancel()
        experiment = self.closing() or Experiment.objects.create(
            key=f"closing-{self.project.public_id}", project=self.project, purpose=Experiment.Purpose.CLOSING,
            number=self.project.next_experiment_number(), rule=self.project.rule,
            baseline_commit=self.project.start_commit, candidate_commit=self.project.champion,
            problems=differing(self.project, self.project.start_commit, self.project.champion),
        )  # fmt: skip
        planned, wanted = 0, self.project.sizes.seeds
        while (missing := wanted - len(closing_scores(self.project)[2])) > 0 and planned < 2 * wanted:
            planned += missing  # the first time all, then what machines lost
            experiment.plan("closing", planned)
            self.until(experiment.is_idle, "closing")
        experiment.end()

    def ablate(self) -> None:
        """The champion without each of its changes; nothing where it is still the start."""
        try:
            ablation = Ablation.ask(self.project)
        except NotMergeable as nothing:
            self.progress.say(f"no ablation: {nothing}")
            return
        tasks.advance_project(self.project.pk)
        self.until(lambda: Ablation.objects.filter(pk=ablation.pk, ended__isnull=False).exists(), "ablation")

    def until(self, done: Callable[[], bool], phase: str) -> None:
        """Wait with progress."""
        while True:
            try:
                if self._tick(done, phase):
                    return
            except DatabaseError as error:  # a full disk: everything waits until there is room again
                self.progress.say(f"the database cannot be used ({error}); trying again")
            if self.stopping.wait(TICK_SECONDS):
                raise Stopped

    def _tick(self, done: Callable[[], bool], phase: str) -> bool:
        for line in self.supervisor.tick():
            self.progress.say(line)
        self.project.refresh_from_db()
        self.progress.show(phase)
        if self.leave_by is not None and self.has_to_leave():
            self.leave(self.leave_by)
        return done()

    def leave(self, deadline: float) -> None:
        """Begin nothing any more, let what runs end, and go. The state of the search stays as it is."""
        self.project.pause("this sitting is over")
        running = self.project.trials.filter(state=Trial.State.LEASED)
        while running.exists() and time.monotonic() < deadline:
            for line in self.supervisor.tick():
                self.progress.say(line)
            self.progress.show("leaving")
            if self.stopping.wait(TICK_SECONDS):
                break
        self.progress.end()
        raise SittingOver(self.project, running.count())

    def has_to_leave(self) -> bool:
        """Time is over, or what runs has ended and nothing that waits would be through in time."""
        if self.leave_by is None:
            return False
        left = self.leave_by - time.monotonic()
        trials = self.project.trials.select_related("experiment", "project")
        if left <= 0 or trials.filter(state=Trial.State.LEASED).exists():
            return left <= 0
        waiting = [expected_seconds(trial) for trial in trials.waiting().comparing()[:MOST_LOOKED_AT]]
        return left < PATIENCE * min(waiting, default=self.pair_seconds())

    def pair_seconds(self) -> float:
        return pair_seconds(self.project)

    def closing_seconds(self) -> float:
        project = self.project
        problems = len(differing(project, project.start_commit, project.champion)) or 1
        return project.sizes.seeds * pair_seconds(project, problems=problems)
