"""Machine, Lease and NoiseFloor: who executes trials, with which right, and how noisy it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from benchmarks.contract import ContractError, load, names
from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.validation import records

LEASE_TIME = timedelta(seconds=15)
SILENT_AFTER = timedelta(seconds=15)  # a machine beats every 4 s
FIDELITY = "fidelity"  # the stage of what screening stopped, measured at the project's own preset to see what it misses
SCREENING = ("screen", "extend", "check", FIDELITY)  # stages whose trials confirm nothing
SCREEN_LEVEL, CONFIRM_LEVEL = 1, 2  # isolation that code from outside the lab needs


def needed_level(stage: str) -> int:
    """The isolation level that a machine must have to run code from outside the lab in this stage."""
    return SCREEN_LEVEL if stage in SCREENING else CONFIRM_LEVEL


class MachineQuerySet(models.QuerySet["Machine"]):
    def living(self) -> MachineQuerySet:
        """Whose workers were heard of lately."""
        return self.filter(seen__gt=timezone.now() - SILENT_AFTER)

    def unfenced(self) -> MachineQuerySet:
        """Where an admin lets code from outside the lab run although nothing holds it back."""
        return self.filter(override_level_zero=True, isolation_level=0)


class Machine(models.Model):
    """A registered host. Its class names what results can be compared: same hardware, same noise."""

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    name = models.CharField(max_length=80, unique=True)
    machine_class = models.CharField(max_length=120)
    slots = models.PositiveIntegerField(default=1)
    isolation_level = models.PositiveIntegerField(default=0, help_text="measured by a probe at worker start")
    isolation = models.JSONField(default=list, help_text="the probe's rows")
    description = models.JSONField(default=dict)
    override_level_zero = models.BooleanField(default=False, help_text="run untrusted code with no sandbox at all")
    seen = models.DateTimeField(null=True, blank=True)

    objects = MachineQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def devices(self) -> frozenset[str]:
        """Kinds of devices that its worker has slots for: "cpu" or "cuda"."""
        return frozenset(self.description.get("devices", ("cpu",)))

    def may_run(self, trusted: bool, stage: str) -> bool:
        """Code that ships with the lab runs anywhere; other code where the sandbox holds it, as far as it does."""
        screened_by_override = self.override_level_zero and stage in SCREENING
        return trusted or self.isolation_level >= needed_level(stage) or screened_by_override

    def takes(self) -> Q:
        """Which trials it may run: `may_run` as a filter, of presets for its devices.

        Looks the level up, since an admin may have changed it.
        """
        self.refresh_from_db(fields=["isolation_level", "override_level_zero"])
        if self.may_run(False, "confirm"):
            return self._fits()
        trusted = Q(experiment__trusted=True)
        return self._fits() & (trusted | Q(stage__in=SCREENING) if self.may_run(False, "screen") else trusted)

    def _fits(self) -> Q:
        """Trials of no preset that wants another device, and of no experiment that is for another class of machine.

        What a preset's benchmark says of it stands in no row.
        """
        found = Q(experiment__machine_class__in=("", self.machine_class))
        for benchmark in names():
            try:
                presets = load(benchmark).presets.values()
            except ContractError:
                continue
            others = [preset.name for preset in presets if preset.device not in self.devices]
            at = Q(preset__in=others) | Q(preset="") & (
                Q(experiment__preset__in=others) | Q(experiment__preset="", project__preset__in=others)
            )
            if others:
                found &= ~(Q(project__benchmark=benchmark) & at)
        return found

    def override(self, by: AbstractUser, allowed: bool) -> None:
        """Let code from outside the lab be screened here without any sandbox, or no longer. An admin of the lab may."""
        Membership.require(by, None, Role.ADMIN, "let untrusted code run without a sandbox")
        with transaction.atomic():
            free = Machine.objects.filter(pk=self.pk, override_level_zero=not allowed)
            if free.update(override_level_zero=allowed):
                AuditEntry.record(by, "override isolation", None, machine=self.name, allowed=allowed)
                words = "may run untrusted code without a sandbox" if allowed else "runs no untrusted code any more"
                Event.record(Event.Kind.MACHINE, f"{self.name} {words}: {by} said so", actor=by)
        self.refresh_from_db(fields=["override_level_zero"])

    def attach(self, level: int, rows: list[dict[str, Any]]) -> None:
        """A worker begins here; what an attack on its sandbox showed stands on every result from now on."""
        with transaction.atomic():
            Machine.objects.filter(pk=self.pk).update(isolation_level=level, isolation=rows)
            words = f"{self.name} attached: isolation {level} of 3, {self.slots} slot{'s' * (self.slots != 1)}"
            Event.record(Event.Kind.MACHINE, words)
        self.refresh_from_db()

    def beat(self) -> None:
        Machine.objects.filter(pk=self.pk).update(seen=timezone.now())


class IdleGap(NamedTuple):
    """A machine stood still although the next pair was waiting already."""

    machine_id: int
    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / timedelta(seconds=1)


class LeaseQuerySet(models.QuerySet["Lease"]):
    def open(self) -> LeaseQuerySet:
        return self.filter(released__isnull=True)

    def since(self, moment: datetime) -> LeaseQuerySet:
        """Held at some time after that moment."""
        return self.filter(Q(released__isnull=True) | Q(released__gt=moment))

    def idle_gaps(self) -> list[IdleGap]:
        """Between the end of what a machine held and its next lease, as far as that trial existed already."""
        ends: dict[int, datetime | None] = {}
        gaps = []
        rows = self.order_by("granted").values_list("machine_id", "granted", "released", "trial__created")
        for machine, granted, released, created in rows:
            end = ends.get(machine)
            if end is not None and max(end, created) < granted:
                gaps.append(IdleGap(machine, max(end, created), granted))
            if machine not in ends or released is None:
                ends[machine] = released  # None: something runs, so nothing stands still
            elif end is not None:
                ends[machine] = max(end, released)
        return gaps

    def expired(self) -> LeaseQuerySet:
        return self.open().filter(expires__lt=timezone.now())


class Lease(models.Model):
    """The exclusive, expiring, fenced right of a worker to execute one trial.

    The database itself holds the exclusion: at most one open lease a trial. `generation` fences: every later write of
    a worker names it, and a write under an older one changes nothing.
    """

    trial = models.ForeignKey("Trial", models.CASCADE, related_name="leases")
    machine = models.ForeignKey(Machine, models.CASCADE, related_name="leases")
    worker = models.CharField(max_length=80)
    generation = models.PositiveIntegerField()
    granted = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField()
    released = models.DateTimeField(null=True, blank=True)

    objects = LeaseQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["trial"], condition=Q(released__isnull=True), name="one_open_lease"),
            models.UniqueConstraint(fields=["trial", "generation"], name="lease_generation"),
        ]

    def __str__(self) -> str:
        return f"lease {self.generation} of trial {self.trial_id}"

    def renew(self) -> bool:
        """Heartbeat. False: the lease is lost, whatever this worker still does counts for nothing."""
        mine = Lease.objects.open().filter(pk=self.pk)
        return mine.update(expires=timezone.now() + LEASE_TIME) == 1

    def release(self) -> bool:
        """True for exactly one caller, so what follows from a release happens once."""
        return Lease.objects.open().filter(pk=self.pk).update(released=timezone.now()) == 1


class NoiseFloor(models.Model):
    """How far two trials of the same commit differ on a class of machine. Stored once, reused."""

    benchmark = models.CharField(max_length=40)
    preset = models.CharField(max_length=40)
    start_tree = models.CharField(max_length=40, help_text="git's hash of the code that was measured")
    data_id = models.CharField(max_length=64)
    machine_class = models.CharField(max_length=120)
    sigma_trial = models.FloatField()
    sigma_pair = models.FloatField()
    drift = models.FloatField()
    trials = models.PositiveIntegerField()
    level = models.FloatField(null=True, help_text="mean score of the A/A trials")
    freedom = models.PositiveIntegerField(null=True, help_text="degrees of freedom of sigma_pair")
    drift_error = models.FloatField(null=True, help_text="sd of the drift where nothing drifts")
    measured = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["benchmark", "preset", "start_tree", "data_id", "machine_class"], name="one_noise_floor"
            )
        ]

    def __str__(self) -> str:
        return f"{self.benchmark}/{self.preset} on {self.machine_class}: sigma {self.sigma_pair:.5f}"

    def record(self) -> records.NoiseFloor:
        """The floor as the pure rules read it."""
        return records.NoiseFloor(**{one.name: getattr(self, one.name) for one in fields(records.NoiseFloor)})

    def refresh(self, pairs: Sequence[tuple[float, float]], scale: records.Scale) -> None:
        """Pool A/A pairs of a newer commit into it."""
        from research.validation.floor import pooled_floor  # numpy: not for the web process

        pooled = vars(pooled_floor(self.record(), pairs, scale=scale))
        NoiseFloor.objects.filter(pk=self.pk).update(**pooled)
        self.refresh_from_db()
