"""Project: one question over one benchmark, with its rule of evidence and its budget."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import F, Sum
from django.utils import timezone

from benchmarks.contract import Benchmark, Preset, load
from benchmarks.data import parts_of
from benchmarks.found import files_of
from research.models.audit import CONSOLE, AuditEntry
from research.models.event import Event
from research.models.ids import new_id
from research.models.people import Membership, Role

USUAL_PRICES = {
    "cpu": Decimal("0.05"),
    "gpu": Decimal("2.50"),
}  # a device-hour: about what hosts charge for a rented one
BUDGETS = ("max_trials", "max_device_seconds", "max_wall_seconds", "max_money", "max_tokens")


def new_seed_key() -> str:
    return secrets.token_hex(32)


class ProjectQuerySet(models.QuerySet["Project"]):
    def live(self) -> ProjectQuerySet:
        """Searching, or ending what runs."""
        return self.filter(state__in=(Project.State.ACTIVE, Project.State.EXHAUSTED))


class Project(models.Model):
    """One question over one benchmark, with its rule of evidence and its budget."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"
        EXHAUSTED = "exhausted"  # the budget is spent: nothing new begins, what runs ends at its next look
        FINISHED = "finished"

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    name = models.SlugField(max_length=80, unique=True)
    question = models.TextField(blank=True)
    benchmark = models.CharField(max_length=40)
    preset = models.CharField(max_length=40)
    screen_preset = models.CharField(
        max_length=40, blank=True, help_text="under which candidates are screened; empty: the project's own"
    )
    start = models.CharField(max_length=40)
    data_id = models.CharField(max_length=64, help_text="scores on different data are never compared")
    problems = models.JSONField(
        default=list, blank=True, help_text="of a benchmark of many problems: their names, each a folder of the tree"
    )
    rule = models.JSONField(help_text="the rule of evidence, as research.validation.rules.Rule")
    state = models.CharField(max_length=12, choices=State, default=State.ACTIVE)
    state_reason = models.TextField(blank=True)
    start_commit = models.CharField(max_length=40, blank=True)
    start_tree = models.CharField(max_length=40, blank=True, help_text="git's hash of the start's content")
    champion = models.CharField(max_length=40, blank=True, help_text="the commit `main` stands on")
    auto_approve = models.BooleanField(default=False, help_text="policy: approve confirmed gains without a person")
    single_person = models.BooleanField(default=False, help_text="whoever steers may also approve; shown")
    max_trials = models.PositiveIntegerField(null=True, blank=True)
    max_device_seconds = models.FloatField(null=True, blank=True)
    max_wall_seconds = models.FloatField(null=True, blank=True)
    max_money = models.DecimalField(
        max_digits=14, decimal_places=8, null=True, blank=True, help_text="of models; never passed, not by one call"
    )
    max_tokens = models.PositiveBigIntegerField(null=True, blank=True, help_text="of models, prompt and reply together")
    device_price = models.DecimalField(
        max_digits=10, decimal_places=4, null=True, blank=True,
        help_text="of one device-hour, in the money of the models: what a choice between them weighs; None: a default",
    )  # fmt: skip
    memory = models.BooleanField(default=True, help_text="researchers see lessons, and repetitions are refused")
    wall_seconds = models.FloatField(default=0, help_text="time the search has been running, over all starts")
    audit_every = models.PositiveIntegerField(
        default=10, help_text="merges until the champion is measured against the start again"
    )
    experiments_begun = models.PositiveIntegerField(default=0)
    seed_key = models.CharField(max_length=64, default=new_seed_key, editable=False)
    techniques = models.JSONField(default=dict, editable=False, help_text="what its catalogue holds, for steering")
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)

    objects = ProjectQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def contract(self) -> Benchmark:
        return load(self.benchmark)

    @property
    def sizes(self) -> Preset:
        return self.contract.preset(self.preset)

    @property
    def repository_path(self) -> Path:
        return Path(settings.DATA_DIR) / "repositories" / f"{self.public_id}.git"

    @property
    def data_path(self) -> Path:
        """Where the benchmark's text lies; never inside a mount of a sandbox."""
        return Path(settings.DATA_DIR) / "datasets" / self.benchmark / self.data_id[:16]

    @property
    def confirm_parts(self) -> tuple[str, ...]:
        """The validation splits that confirm, one after another; none where inputs are drawn anew."""
        return parts_of(self.data_path, self.sizes.confirm_data) if self.sizes.confirm_data else ()

    def touched(self, paths: Iterable[str]) -> list[str]:
        """The problems whose folders these paths lie in, in order. None in a benchmark of one problem."""
        folders = {path.split("/", 1)[0] for path in paths if "/" in path}
        return [name for name in self.problems if name in folders]

    @property
    def withheld(self) -> list[str]:
        """The problems that others wrote, not ours to pass on; all where the data are gone, which alone can tell."""
        return self.contract.withheld(self.data_path, self.problems)

    @property
    def noise_key(self) -> dict[str, Any]:
        """What a noise floor must have been measured on to hold here, but for the class of machine."""
        return self.noise_key_at(self.preset)

    def noise_key_at(self, preset: str) -> dict[str, Any]:
        """The same for another preset: every preset has a noise floor of its own."""
        return {
            "benchmark": self.benchmark,
            "preset": preset,
            "start_tree": self.start_tree,
            "data_id": self.data_id,
        }

    @property
    def measured_presets(self) -> tuple[str, ...]:
        """The presets that need a noise floor: the one that screens, if it is another, before the project's own."""
        return (self.screen_preset, self.preset) if self.screen_preset else (self.preset,)

    def remove(self) -> None:
        """Delete all rows of it: an older copy of a project that comes back from another machine. Its files stay."""
        with transaction.atomic():
            AuditEntry.of_nobody(CONSOLE, "replace", self, name=self.name, experiments=self.experiments_begun)
            self.delete()

    def list_techniques(self) -> None:
        """Store what the catalogue holds, where it changed. Only the control worker tries techniques: it parses."""
        version = self.contract.catalogue_version(self.start, self.preset)
        if self.techniques.get("version") != version:
            found = {
                row.name: {"title": row.title, "family": row.family, "files": files_of(row.patch)}
                for row in self.found_techniques.model.objects.in_catalogue(self)
            }
            by_name = {**found, **self.contract.describe_techniques(self.start, self.preset, self.data_path)}
            self.techniques = {"version": version, "by_name": by_name}
            self.save(update_fields=["techniques"])

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        """Technique -> title, family, files. Empty until the control worker has listed them."""
        return self.techniques.get("by_name", {})  # type: ignore[no-any-return]

    @property
    def labels(self) -> Mapping[str, frozenset[str]]:
        """What steering may call each technique: its name, its family, the files and the problems it changes."""
        return {
            name: frozenset({name, about["family"], *about["files"], *self.touched(about["files"])})
            for name, about in self.described.items()
        }

    @property
    def is_running(self) -> bool:
        return self.state == self.State.ACTIVE

    def next_experiment_number(self) -> int:
        Project.objects.filter(pk=self.pk).update(experiments_begun=F("experiments_begun") + 1)
        self.refresh_from_db(fields=["experiments_begun"])
        return self.experiments_begun

    def seed(self, experiment_number: int, stage: str, pair: int) -> int:
        """The seed of a pair: fixed with the project, so before any candidate exists; both arms share it."""
        message = f"{experiment_number}/{stage}/{pair}".encode()
        digest = hmac.new(bytes.fromhex(self.seed_key), message, hashlib.sha256).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def move_champion(self, old: str, new: str) -> bool:
        """Compare and swap: False where `main` has moved since `old` was read."""
        moved = Project.objects.filter(pk=self.pk, champion=old).update(champion=new)
        self.refresh_from_db(fields=["champion"])
        return moved == 1

    def pause(self, reason: str = "", by: User | None = None) -> None:
        before = {self.State.ACTIVE, self.State.EXHAUSTED}  # what ends is held up too
        self._act(by, "pause", before, self.State.PAUSED, reason)

    def resume(self, by: User | None = None) -> None:
        """Go on. A spent budget stops it again at the next look, so raise that first."""
        idle = {self.State.PAUSED, self.State.EXHAUSTED, self.State.FINISHED}
        self._act(by, "resume", idle, self.State.ACTIVE, "")

    def measure_only(self, reason: str) -> None:
        """Let machines take what was asked for; nothing new is proposed or begun."""
        before = {self.State.ACTIVE, self.State.PAUSED, self.State.FINISHED}
        self._act(None, "", before, self.State.EXHAUSTED, reason)

    def back_to(self, state: str) -> None:
        """After `measure_only`: as it was before. A search that was running waits for whoever wants it to go on."""
        after = self.State.PAUSED if state == self.State.ACTIVE else self.State(state)
        before = {self.State.EXHAUSTED, self.State.PAUSED}
        if after not in (self.State.EXHAUSTED,):
            self._act(None, "", before - {after}, after, "")

    def exhaust(self, reason: str) -> None:
        self._act(None, "", {self.State.ACTIVE}, self.State.EXHAUSTED, reason)

    def finish(self, by: User | None = None) -> None:
        before = {self.State.ACTIVE, self.State.PAUSED, self.State.EXHAUSTED}
        self._act(by, "finish", before, self.State.FINISHED, "")

    def set_budget(self, by: User, **limits: float | Decimal | None) -> None:
        """Set one or more of BUDGETS; None lifts a limit.

        An exhausted project goes on, until the next look finds the new budget spent too; so does what a cap on models
        had stopped.
        """
        Membership.require(by, self, Role.MEMBER, "set its budget")
        if unknown := sorted(set(limits) - set(BUDGETS)):
            raise ValueError(f"there is no budget {', '.join(unknown)}; there are {', '.join(BUDGETS)}")
        if any(limit is not None and not limit > 0 for limit in limits.values()):
            raise ValueError("a budget must be above 0; leave it empty for none")
        with transaction.atomic():
            Project.objects.filter(pk=self.pk).update(**limits)
            plain = {name: float(limit) if isinstance(limit, Decimal) else limit for name, limit in limits.items()}
            AuditEntry.record(by, "budget", self, **plain)
            words = ", ".join(f"{_limit(name, value)}" for name, value in limits.items())
            Event.record(Event.Kind.STATE, f"budget set by {by}: {words}", project=self, actor=by)
            self._change({self.State.EXHAUSTED}, self.State.ACTIVE, "")
            for thread in self.threads.all():
                thread.funded("the budget was raised")
        self.refresh_from_db(fields=list(limits))

    def spent(self) -> tuple[int, float]:
        """Trials and device-seconds so far. A short check costs its seconds and is no trial of the budget."""
        seconds = self.trials.aggregate(total=Sum("result__device_seconds"))["total"] or 0.0
        return self.trials.comparing().filter(result__isnull=False).count(), seconds

    def over_budget(self) -> str | None:
        """Which budget of measuring is spent, in one line; None while there is some left."""
        trials, seconds = self.spent()
        if self.max_trials is not None and trials >= self.max_trials:
            return f"the budget of {self.max_trials} trials is spent"
        if self.max_device_seconds is not None and seconds >= self.max_device_seconds:
            return f"the budget of {self.max_device_seconds:g} device-seconds is spent"
        if self.max_wall_seconds is not None and self.wall_seconds >= self.max_wall_seconds:
            return f"the budget of {self.max_wall_seconds / 60:g} minutes is spent"
        return None

    @property
    def price_a_second(self) -> float:
        """What a device-second counts for beside the money that models cost."""
        usual = USUAL_PRICES["cpu" if self.sizes.clock == "cpu" else "gpu"]
        return float(usual if self.device_price is None else self.device_price) / 3600

    def set_device_price(self, by: User, price: Decimal | None) -> None:
        """What one device-hour counts for when researchers are chosen by yield per cost; None takes the default."""
        Membership.require(by, self, Role.MEMBER, "set its price of device time")
        if price is not None and not 0 <= price < 100_000:
            raise ValueError("the price of a device-hour is 0 or more; leave it empty for the default")
        with transaction.atomic():
            Project.objects.filter(pk=self.pk).update(device_price=price)
            AuditEntry.record(by, "device price", self, price=None if price is None else str(price))
            words = "the default" if price is None else str(price)
            Event.record(Event.Kind.STATE, f"price of a device-hour set by {by}: {words}", project=self, actor=by)
        self.refresh_from_db(fields=["device_price"])

    def set_single_person(self, by: User, single: bool) -> None:
        """Whether whoever started or steered a thread may also approve what it found. Shown on the pages."""
        Membership.require(by, self, Role.ADMIN, "switch single-person mode")
        with transaction.atomic():
            if Project.objects.filter(pk=self.pk, single_person=not single).update(single_person=single):
                AuditEntry.record(by, "single person", self, on=single)
                words = f"single-person mode was switched {'on' if single else 'off'} by {by}"
                Event.record(Event.Kind.STATE, words, project=self, actor=by)
        self.refresh_from_db(fields=["single_person"])

    def _act(self, by: User | None, act: str, before: set[State], after: State, reason: str) -> None:
        """A change of state, in somebody's name where there is one. Nothing is written where it changes nothing."""
        Membership.require(by, self, Role.MEMBER, f"{act} it")
        with transaction.atomic():
            if self._change(before, after, reason, by) and by is not None:
                AuditEntry.record(by, act, self, reason=reason)

    def _change(self, before: set[State], after: State, reason: str, by: User | None = None) -> bool:
        with transaction.atomic():
            mine = Project.objects.filter(pk=self.pk, state__in=before)
            changed = mine.update(state=after, state_reason=reason) == 1
            if changed:
                words = (
                    f"the project is {after.value}" + (f" by {by}" if by else "") + (f": {reason}" if reason else "")
                )
                Event.record(Event.Kind.STATE, words, project=self, actor=by)
        self.refresh_from_db(fields=["state", "state_reason"])
        return changed


def _limit(name: str, value: float | Decimal | None) -> str:
    what = name.removeprefix("max_").replace("_", " ")
    return f"no limit of {what}" if value is None else f"{value:.12g} {what}"
