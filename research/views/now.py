"""The now-line: what a thread does at this moment, in words. Written for many threads at once: walls show it.

Nothing here decides; it reads rows that the loop wrote. At most seven queries, however many threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.db.models import prefetch_related_objects

from research.loop import noise
from research.models import Candidate, Experiment, Idea, Lease, Machine, Project, Thread, Trial
from research.models.machine import needed_level

MEASURING = {
    "screen": "screening", "extend": "extending", "confirm": "confirming", "noise": "measuring noise",
    "closing": "measuring champion against start",
}  # fmt: skip
UNFINISHED = (Trial.State.WAITING, Trial.State.LEASED)


@dataclass(frozen=True)
class Now:
    """What goes on. `trial` is the candidate's arm of the pair that runs now; `started` is when a machine took it."""

    text: str
    stage: str  # screen, extend, confirm; else proposing, implementing, opening, waiting, judging, or the state
    tone: str = "live"  # live, quiet, warn or bad: a class of lab.css
    experiment: Experiment | None = None
    idea: Idea | None = None
    trial: Trial | None = None
    started: datetime | None = None
    machine: str = ""

    @property
    def is_measuring(self) -> bool:
        return self.trial is not None


def now_line(thread: Thread) -> Now:
    return now_lines([thread])[thread.pk]


def now_lines(threads: Iterable[Thread]) -> dict[int, Now]:
    """The now-line of each thread, by its pk."""
    rows = list(threads)
    prefetch_related_objects(rows, "project")
    running = _running(rows)
    measured = measuring(list(running.values()))
    idle = [thread for thread in rows if thread.pk not in running]
    ready = _ready(idle)
    found = {}
    for thread in rows:
        if thread.pk in running:
            found[thread.pk] = _with_state(thread, measured[running[thread.pk].pk])
        else:
            found[thread.pk] = _stopped(thread) or ready.get(thread.pk) or _idle(thread)
    return found


def _idle(thread: Thread) -> Now:
    if thread.researcher == "external":
        return Now("waiting for an agent from outside", "waiting", "quiet")
    return Now("proposing the next idea", "proposing")


def measuring(experiments: Sequence[Experiment]) -> dict[int, Now]:
    """What running experiments, of a thread or not, measure or wait for, by pk."""
    trials: dict[int, list[Trial]] = {experiment.pk: [] for experiment in experiments}
    if not trials:
        return {}
    wanted = Trial.objects.filter(experiment__in=trials).exclude(state=Trial.State.CANCELLED)
    for trial in wanted.only("public_id", "experiment_id", "stage", "pair", "arm", "state").order_by("pk"):
        trials[trial.experiment_id].append(trial)
    leases: dict[int, list[Lease]] = {}
    open_leases = Lease.objects.open().filter(trial__experiment__in=trials)
    for lease in open_leases.select_related("machine", "trial").order_by("pk"):
        leases.setdefault(lease.trial.experiment_id, []).append(lease)
    machines = list(Machine.objects.living())
    return {
        experiment.pk: _measure(experiment, trials[experiment.pk], leases.get(experiment.pk, []), machines)
        for experiment in experiments
    }


def why_waiting(experiment: Experiment, stage: str, machines: Sequence[Machine]) -> tuple[str, str]:
    """Tone, and why no machine of those that live has taken a pair of this stage yet."""
    if not machines:
        return "warn", "waits: no machine is attached"
    if (device := _device(experiment, stage)) not in frozenset[str]().union(*(one.devices for one in machines)):
        return "warn", "waits for a machine with a GPU" if device == "cuda" else f"waits for a machine with a {device}"
    machines = [machine for machine in machines if device in machine.devices]
    if (only := experiment.machine_class) and not any(machine.machine_class == only for machine in machines):
        return "warn", f"waits for a machine of the class {only}"
    if not any(machine.may_run(experiment.trusted, stage) for machine in machines):
        return "warn", f"waits for a machine with isolation level {needed_level(stage)}"
    return "quiet", "waits for a machine"


def _device(experiment: Experiment, stage: str) -> str:
    project = experiment.project
    return project.contract.preset(experiment.preset_at(stage) or project.preset).device


def last_line(text: str) -> str:
    """The line of a traceback or note that says most."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _running(threads: Sequence[Thread]) -> dict[int, Experiment]:
    """The experiment under way of each thread; a comparison before a replicate."""
    experiments = Experiment.objects.running().filter(thread__in=threads).select_related("candidate__idea")
    ordered = sorted(experiments, key=lambda row: (row.purpose == Experiment.Purpose.COMPARE, row.pk))
    return {row.thread_id: row for row in ordered if row.thread_id is not None}


def _measure(experiment: Experiment, trials: list[Trial], leases: list[Lease], machines: list[Machine]) -> Now:
    idea = experiment.candidate.idea if experiment.candidate else None
    unfinished = [trial for trial in trials if trial.state in UNFINISHED]
    if not unfinished:
        return _judged(experiment, idea)
    at = leases[0].trial if leases else unfinished[0]
    pairs = 1 + max(trial.pair for trial in trials if trial.stage == at.stage)
    what = f"{MEASURING.get(at.stage, at.stage)}, pair {at.pair + 1} of {pairs}"
    if not leases:
        tone, why = why_waiting(experiment, at.stage, machines)
        return Now(f"{what} {why}", at.stage, tone, experiment, idea)
    candidates = [lease.trial for lease in leases if lease.trial.arm == Trial.Arm.CANDIDATE]
    machine = leases[0].machine.name
    return Now(
        f"{what} on {machine}", at.stage, "live", experiment, idea,
        (candidates or [at])[0], min(lease.granted for lease in leases), machine,
    )  # fmt: skip


def _judged(experiment: Experiment, idea: Idea | None) -> Now:
    done, wanted = noise.progress(experiment.project)
    if experiment.purpose == Experiment.Purpose.COMPARE and done < wanted:
        text = f"waits for the noise floor: {done} of {wanted} trials"
        return Now(text, "waiting", "quiet", experiment, idea)
    return Now("judging", "judging", "live", experiment, idea)


def _ready(threads: Sequence[Thread]) -> dict[int, Now]:
    """Threads without an experiment that hold an idea already."""
    found: dict[int, Now] = {}
    if not threads:
        return found
    for idea in Idea.objects.filter(thread__in=threads, state=Idea.State.PROPOSED).order_by("-number"):
        found[idea.thread_id] = Now("implementing the next idea", "implementing", idea=idea)
    waiting = Candidate.objects.filter(thread__in=threads, experiment__isnull=True)
    for candidate in waiting.select_related("idea").order_by("-pk"):
        found[candidate.thread_id] = Now("opening the experiment", "opening", idea=candidate.idea)
    return found


def _stopped(thread: Thread) -> Now | None:
    """Why nothing goes on, where somebody or something stopped it."""
    if thread.state == Thread.State.HALTED:
        return Now(f"halted: {last_line(thread.note)}", "halted", "bad")
    if thread.state == Thread.State.PAUSED:
        return Now("paused", "paused", "warn")
    if thread.state == Thread.State.FINISHED:
        return Now(f"finished: {last_line(thread.note) or 'nothing left to propose'}", "finished", "quiet")
    project = thread.project
    if project.state != Project.State.ACTIVE:
        reason = f": {project.state_reason}" if project.state_reason else ""
        tone = "quiet" if project.state == Project.State.FINISHED else "warn"
        return Now(f"the project is {project.state}{reason}", project.state, tone)
    return None


def _with_state(thread: Thread, now: Now) -> Now:
    """A stop that lets the experiment under way end first."""
    if thread.project.state == Project.State.PAUSED and not now.is_measuring:
        return replace(now, text=f"the project is paused, {now.text}", stage="paused", tone="warn")
    if thread.state == Thread.State.HALTED:
        return replace(now, text=f"halted: {last_line(thread.note)}", stage="halted", tone="bad")
    if thread.state == Thread.State.PAUSED:
        return replace(now, text=f"paused after this: {now.text}", tone="warn")
    return now
