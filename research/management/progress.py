"""A campaign's progress on stderr: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from research.loop import noise
from research.models import Event, Experiment, MergeRequest, Project, Result, Thread, Trial, Verdict

COLOURS = {"improved": "green", "worse": "red", "invalid": "magenta", "no_difference": "yellow"}
STATUS_SECONDS = 30.0
SHOWN = 8


class Progress:
    def __init__(self, project: Project, seconds: float) -> None:
        self.project, self.seconds = project, seconds
        self.console = Console(stderr=True, highlight=False)
        self._verdict = self._request = 0
        self._machine = Event.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
        self._said: set[int] = set()  # requests
        self._status = 0.0
        self._lines: list[Text] = []
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        if self._live:
            self._live.start()
        self.say(f"project {project.name}: {project.question}")

    def say(self, line: str | Text) -> None:
        text = line if isinstance(line, Text) else Text(line)
        self._lines = [*self._lines, text][-SHOWN:]
        if self._live is None:
            self.console.print(text, soft_wrap=True)

    def show(self, phase: str) -> None:
        """New verdicts and requests since the last call, and where things stand."""
        for attached in self._attached():
            self.say(Text(attached, "dim"))
        for verdict in self._new_verdicts():
            self.say(self._line(verdict))
        for request in MergeRequest.objects.filter(
            project=self.project, pk__gt=self._request, state=MergeRequest.State.MERGED
        ).order_by("pk"):
            self._request = request.pk
            self.say(Text(f"merged {request.commit[:10]} of {request.thread} into main", "bold green"))
        for request in self._newly_waiting():
            self.say(
                Text(f"{request.commit[:10]} of {request.thread} waits for a person: {self._why(request)}", "yellow")
            )
        if self._live:
            self._live.update(self._table(phase), refresh=True)
        elif time.monotonic() - self._status > STATUS_SECONDS:
            self._status = time.monotonic()
            self.console.print(Text(self._summary(phase), "dim"), soft_wrap=True)

    def end(self) -> None:
        if self._live:
            self._live.stop()

    def _attached(self) -> list[str]:
        """Machines that have come since the last call, with the isolation level that was measured there."""
        rows = Event.objects.filter(kind=Event.Kind.MACHINE, seq__gt=self._machine).order_by("seq")
        found = list(rows.values_list("seq", "text"))
        self._machine = found[-1][0] if found else self._machine
        return [text for _, text in found]

    def _new_verdicts(self) -> list[Verdict]:
        found = Verdict.objects.filter(experiment__project=self.project, pk__gt=self._verdict).order_by("pk")
        rows = list(found.select_related("experiment__thread", "experiment__candidate__idea"))
        if rows:
            self._verdict = rows[-1].pk
        return rows

    def _newly_waiting(self) -> list[MergeRequest]:
        """Confirmed gains that no policy approves, said once each."""
        found = [request for request in self._waiting() if request.pk not in self._said]
        self._said |= {request.pk for request in found}
        return found

    def _waiting(self) -> list[MergeRequest]:
        requests = MergeRequest.objects.open().filter(project=self.project).select_related("project", "verdict")
        return [one for one in requests.order_by("pk") if one.waits_for_a_person]

    def _why(self, request: MergeRequest) -> str:
        standing = request.verdict.experiment.findings.standing().order_by("pk")
        return "; ".join(finding.message for finding in standing) or "this project merges by a person's word"

    def _line(self, verdict: Verdict) -> Text:
        experiment = verdict.experiment
        gain = f"{verdict.relative:+.2%}" if verdict.relative is not None else "    –"
        thread = experiment.thread.number if experiment.thread else "-"
        idea = experiment.candidate.idea.hypothesis if experiment.candidate else ""
        kind = str(verdict.kind).replace("_", " ")
        return Text.assemble(
            (f"#{experiment.number:<3} thread {thread}  ", "dim"), (f"{kind:<13}", COLOURS.get(verdict.kind, "")),
            f" {gain:>8}  {idea}",
        )  # fmt: skip

    def _summary(self, phase: str) -> str:
        done, wanted = noise.progress(self.project)
        measuring = self.project.experiments.running().filter(purpose=Experiment.Purpose.NOISE).exists()
        floor = f", measuring noise {done} of {wanted}" if measuring and done < wanted else ""
        left = max(0.0, self.seconds - self.project.wall_seconds)
        trials = Result.objects.filter(trial__project=self.project).count()
        merged = self.project.merge_requests.filter(state=MergeRequest.State.MERGED).count()
        verdicts = Verdict.objects.filter(experiment__project=self.project).count()
        still = "" if self.project.trials.unfinished().exists() else ", nothing to measure at the moment"
        waiting = len(self._waiting())
        wait = f", {waiting} gain{'s' * (waiting != 1)} for a person to look at" if waiting else ""
        told = f"{verdicts} verdicts, {merged} merged{wait}, {trials} trials{floor}{still}"
        return f"{phase}: {told}; {left / 60:.1f} minutes left"

    def _table(self, phase: str) -> Group:
        table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
        for column in ("thread", "head", "now", "change under test"):
            table.add_column(column)
        for thread in self.project.threads.order_by("number"):
            table.add_row(str(thread.number), thread.head[:10], *self._now(thread))
        bar = Table.grid()
        bar.add_row(ProgressBar(self.seconds, min(self.seconds, self.project.wall_seconds), width=60))
        return Group(Text(self._summary(phase), "bold"), bar, table, *self._lines)

    def _now(self, thread: Thread) -> tuple[str, str]:
        if thread.state != Thread.State.ACTIVE:
            return thread.state, thread.note.strip().splitlines()[-1] if thread.note else ""
        experiment: Experiment | None = thread.experiments.running().order_by("-pk").first()
        if experiment is None:
            return "choosing", ""
        trials = experiment.trials.filter(state__in=(Trial.State.WAITING, Trial.State.LEASED)).order_by("pk")
        first = trials.first()
        ended = experiment.trials.filter(state=Trial.State.ENDED).count()
        stage = first.stage if first else "judging"
        idea = experiment.candidate.idea.hypothesis if experiment.candidate else ""
        return f"{stage}, {ended} trials", idea[:90]
