"""What the machines page shows: one reading of the leases of the last ten minutes, for all machines at once.

Everybody who is signed in sees the machines; trials of projects that a person may not see are drawn without a name.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from statistics import median
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db.models import Count
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

from research.drawing.gantt import Bar, Lane, gantt
from research.models import Experiment, Lease, Machine, Membership, NoiseFloor, Project, Role, Trial
from research.models.machine import SILENT_AFTER, IdleGap
from research.models.trial import CHECK
from research.views.now import MEASURING, why_waiting

WINDOW = timedelta(minutes=10)
LEVELS = {
    4: ("a machine of its own", "Every trial has a virtual machine. Nothing of a candidate outlives it."),
    3: ("full sandbox", "Every attack was held: no network, no foreign file, its own user, memory and process caps."),
    2: ("sandbox without all caps", "The fence held, but there is no control group or no user of its own for a slot: "
        "a candidate may use more memory or processes than it should."),
    1: ("fence only", "Only file access and system calls are fenced. Code from outside the lab is screened, no more."),
    0: ("none", "Nothing holds a candidate back. Run only code that you trust here."),
}  # fmt: skip
PROBES = {
    "answered": "the attack itself ran to its end",
    "hidden_file": "read a private file of the host",
    "inherited_descriptors": "use files that the lab had open",
    "trusted_files": "change the interpreter, a library or the lab's own code",
    "network": "open a network connection",
    "abstract_socket": "reach another program over a local socket",
    "host_processes": "see processes of the host",
    "zygote_memory": "write into the process that starts candidates",
    "zygote_signals": "stop or kill the process that starts candidates",
    "capture": "trace or copy from another process",
    "nested_namespaces": "build a sandbox of its own inside",
    "kernel_surfaces": "use risky parts of the kernel",
    "lasting_objects": "leave shared memory behind for the next candidate",
    "wall_clock": "set the clock",
    "environment": "read secrets from the environment",
    "kernel_settings": "change settings of the kernel",
    "scheduling": "take another core or a higher priority",
    "writable_places": "write outside its own folder",
    "device_times": "leave a mark on a device file",
    "scratch_cap": "fill the disk",
    "identity": "keep rights of the lab's user",
    "daemons_killed": "leave a process behind",
    "memory_cap": "take more memory than allowed",
    "process_cap": "start more processes than allowed",
    "own_user": "act as the user of another slot",
}
Row = dict[str, Any]


class MachinesBoard:
    def __init__(self, user: AbstractUser) -> None:
        self.user = user
        self.now = timezone.now()

    @property
    def may_override(self) -> bool:
        return Membership.role_of(self.user, None) >= Role.ADMIN

    @cached_property
    def visible(self) -> dict[int, Project]:
        return {project.pk: project for project in Membership.projects_of(self.user)}

    @cached_property
    def machines(self) -> list[MachineBoard]:
        """Those that were heard of lately first."""
        leases, gaps = self._leases(), self._gaps()
        rows = sorted(Machine.objects.all(), key=lambda row: (row.seen is None, -(row.seen or self.now).timestamp()))
        floors: dict[str, list[NoiseFloor]] = {}
        for floor in NoiseFloor.objects.order_by("-measured"):
            floors.setdefault(floor.machine_class, []).append(floor)
        return [
            MachineBoard(row, self, leases.get(row.pk, []), gaps.get(row.pk, []), floors.get(row.machine_class, []))
            for row in rows
        ]

    @cached_property
    def waiting(self) -> list[Waiting]:
        """Pairs that no machine has taken yet, by experiment, in the order in which they will be."""
        live = (Project.State.ACTIVE, Project.State.EXHAUSTED)
        trials = (
            Trial.objects.waiting()
            .comparing()
            .filter(project__state__in=live, experiment__state=Experiment.State.RUNNING)
        )
        rows = trials.values("experiment_id", "stage").annotate(pairs=Count("pair", distinct=True))
        experiments = Experiment.objects.select_related("candidate__idea", "project", "thread").in_bulk(
            {row["experiment_id"] for row in rows}
        )
        attached = list(Machine.objects.living())
        found = []
        for row in rows:
            experiment, stage = experiments[row["experiment_id"]], row["stage"]
            tone, why = why_waiting(experiment, stage, attached)
            found.append(Waiting(experiment, stage, row["pairs"], why if tone == "warn" and attached else ""))
        return sorted(found, key=lambda one: (one.experiment.served is not None, one.experiment.served or self.now))

    @property
    def waiting_here(self) -> list[Waiting]:
        """Those of projects that this person may see."""
        return [one for one in self.waiting if one.experiment.project_id in self.visible]

    @property
    def waiting_pairs(self) -> int:
        return sum(one.pairs for one in self.waiting)

    @property
    def waiting_elsewhere(self) -> int:
        return self.waiting_pairs - sum(one.pairs for one in self.waiting_here)

    def _leases(self) -> dict[int, list[Row]]:
        rows = Lease.objects.since(self.now - WINDOW).order_by("granted").values(
            "machine_id", "granted", "released", "trial__slot", "trial__arm", "trial__stage", "trial__pair",
            "trial__project_id", "trial__experiment__public_id", "trial__experiment__number",
            "trial__experiment__purpose", "trial__experiment__thread__number",
            "trial__experiment__thread__public_id", "trial__result__failure", "trial__result__generation", "generation",
        )  # fmt: skip
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(row["machine_id"], []).append(dict(row))
        return found

    def _gaps(self) -> dict[int, list[IdleGap]]:
        found: dict[int, list[IdleGap]] = {}
        for gap in Lease.objects.since(self.now - WINDOW).idle_gaps():
            found.setdefault(gap.machine_id, []).append(gap)
        return found


@dataclass(frozen=True)
class Waiting:
    experiment: Experiment
    stage: str
    pairs: int
    held_up: str = ""  # why none of the machines that live takes it

    @property
    def what(self) -> str:
        return MEASURING.get(self.stage, self.stage)


@dataclass(frozen=True)
class Running:
    """What a slot executes now; `name` is empty where this person may not know."""

    slot: int
    name: str
    href: str
    thread: str
    thread_href: str
    what: str
    elapsed: float
    about: float | None

    @property
    def share(self) -> float:
        return min(1.0, self.elapsed / self.about) if self.about else 0.0


class MachineBoard:
    """One machine over the window."""

    def __init__(
        self, row: Machine, board: MachinesBoard, leases: list[Row], gaps: list[IdleGap], floors: list[NoiseFloor]
    ) -> None:
        self.row, self.board, self.leases, self.gaps, self.floors = row, board, leases, gaps, floors
        self.now = board.now

    @property
    def is_silent(self) -> bool:
        return self.row.seen is None or self.now - self.row.seen > SILENT_AFTER

    @property
    def is_idle(self) -> bool:
        return not any(lease["released"] is None for lease in self.leases)

    @property
    def state(self) -> tuple[str, str, str]:
        """Tone, glyph and word."""
        if self.is_silent:
            return "bad", "×", "silent"
        return ("quiet", "○", "idle") if self.is_idle else ("live", "◐", "measuring")

    @cached_property
    def busy(self) -> float:
        """Share of slot time in the window that was leased."""
        held = sum(self._back(lease["granted"]) - self._back(lease["released"]) for lease in self.leases)
        return min(1.0, held / (WINDOW.total_seconds() * max(1, self.row.slots)))

    @cached_property
    def ended(self) -> int:
        return sum(lease["released"] is not None for lease in self.leases)

    @property
    def failed(self) -> int:
        return sum(_failed(lease) for lease in self.leases)

    @cached_property
    def trial_seconds(self) -> float | None:
        """How long a trial takes here, of all that ended in the window."""
        return _typical(self.leases)

    @property
    def idle_typical(self) -> float | None:
        return median(gap.seconds for gap in self.gaps) if self.gaps else None

    @property
    def idle_longest(self) -> float:
        return max((gap.seconds for gap in self.gaps), default=0.0)

    @cached_property
    def running(self) -> list[Running | int]:
        """By slot: what runs there, or the number of the idle slot."""
        by_slot = {lease["trial__slot"]: lease for lease in self.leases if lease["released"] is None}
        slots = range(max(self.row.slots, 1 + max(by_slot, default=-1)))
        return [self._running(by_slot[slot]) if slot in by_slot else slot for slot in slots]

    @cached_property
    def level(self) -> tuple[str, str]:
        return LEVELS.get(self.row.isolation_level, (str(self.row.isolation_level), ""))

    @property
    def may_be_overridden(self) -> bool:
        return self.row.isolation_level == 0 or self.row.override_level_zero

    @cached_property
    def probes(self) -> list[Row]:
        """What was tried, in words; what did not hold comes first."""
        rows = [row | {"words": PROBES.get(row["name"], row["name"].replace("_", " "))} for row in self.row.isolation]
        return sorted(rows, key=lambda row: bool(row["passed"]))

    @property
    def held(self) -> int:
        return sum(bool(row["passed"]) for row in self.row.isolation)

    @cached_property
    def lanes(self) -> SafeString:
        """The drawing of the window."""
        idle = [(self._back(gap.start), self._back(gap.end)) for gap in self.gaps]
        bars: dict[int, list[Bar]] = {slot: [] for slot in range(self.row.slots)}
        for lease in self.leases:
            bars.setdefault(lease["trial__slot"], []).append(self._bar(lease))
        lanes = [Lane(f"slot {slot}", bars[slot], idle) for slot in sorted(bars)]
        label = f"{self.row.name}, the last 10 minutes: {self.busy:.0%} busy, {self.ended} trials ended"
        return mark_safe(gantt(lanes, WINDOW.total_seconds(), label))  # noqa: S308  # escapes every text

    @property
    def threads(self) -> list[tuple[int, str]]:
        """(colour, number) of the threads in the drawing, for its legend."""
        seen = Counter(
            lease["trial__experiment__thread__number"] for lease in self.leases
            if lease["trial__project_id"] in self.board.visible
        )  # fmt: skip
        return [((number - 1) % 8, str(number)) for number in sorted(number for number in seen if number)]

    def _back(self, moment: datetime | None) -> float:
        """Seconds ago, inside the window."""
        return min(WINDOW.total_seconds(), (self.now - moment).total_seconds()) if moment else 0.0

    def _bar(self, lease: Row) -> Bar:
        visible = lease["trial__project_id"] in self.board.visible
        thread = lease["trial__experiment__thread__number"]
        kind = "other" if not visible else f"thread-{(thread - 1) % 8}" if thread else "noise"
        if visible and _failed(lease):
            kind = "failed"
        return Bar(
            self._back(lease["granted"]), self._back(lease["released"]), kind, lease["trial__arm"],
            _title(lease) if visible else "a trial of another project", _href(lease) if visible else "",
            lease["released"] is None,
        )  # fmt: skip

    def _running(self, lease: Row) -> Running:
        elapsed = max(0.0, (self.now - lease["granted"]).total_seconds())
        alike = [one for one in self.leases if one["trial__project_id"] == lease["trial__project_id"]]
        about = _typical([one for one in alike if one["trial__stage"] == lease["trial__stage"]]) or _typical(alike)
        slot = lease["trial__slot"]
        if lease["trial__project_id"] not in self.board.visible:
            return Running(slot, "", "", "", "", "a trial of another project", elapsed, about)
        if lease["trial__stage"] == CHECK:
            return Running(slot, "", "", "", "", "a short check of a change", elapsed, about)
        thread = lease["trial__experiment__thread__number"]
        what = f"{MEASURING.get(lease['trial__stage'], lease['trial__stage'])}, pair {lease['trial__pair'] + 1}"
        return Running(
            slot, f"experiment {lease['trial__experiment__number']} {lease['trial__arm']}", _href(lease),
            f"thread {thread}" if thread else "",
            reverse("thread", args=[lease["trial__experiment__thread__public_id"]]) if thread else "",
            what, elapsed, about,
        )  # fmt: skip


def _failed(lease: Row) -> bool:
    return bool(lease["trial__result__failure"]) and lease["trial__result__generation"] == lease["generation"]


def _typical(leases: list[Row]) -> float | None:
    seconds = [(one["released"] - one["granted"]).total_seconds() for one in leases if one["released"]]
    return median(seconds) if seconds else None


def _href(lease: Row) -> str:
    if lease["trial__stage"] == CHECK:  # has no page
        return ""
    return reverse("experiment", args=[lease["trial__experiment__public_id"]])


def _title(lease: Row) -> str:
    if lease["trial__stage"] == CHECK:
        return "a short check of a change"
    number, arm, stage = lease["trial__experiment__number"], lease["trial__arm"], lease["trial__stage"]
    end = "running" if lease["released"] is None else f"{(lease['released'] - lease['granted']).total_seconds():.1f} s"
    failure = f", {lease['trial__result__failure'].replace('_', ' ')}" if _failed(lease) else ""
    return f"experiment {number}, {stage} pair {lease['trial__pair'] + 1}, {arm}: {end}{failure}"
