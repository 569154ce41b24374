"""Project and Thread: one question over one benchmark, and its lines of inquiry."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from benchmarks.contract import Benchmark, Preset, load
from research.models.ids import new_id

if TYPE_CHECKING:
    from research.models.candidate import Candidate

# How long one control thread may hold a research thread between two signs of life.
ADVANCE_HOLD = timedelta(seconds=20)


def new_seed_key() -> str:
    return secrets.token_hex(32)


class Project(models.Model):
    """One question over one benchmark, with its rule of evidence and its budget."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"
        EXHAUSTED = "exhausted"  # the budget is spent: running experiments end, nothing new begins
        FINISHED = "finished"

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    name = models.SlugField(max_length=80, unique=True)
    question = models.TextField(blank=True)
    benchmark = models.CharField(max_length=40)
    preset = models.CharField(max_length=40)
    start = models.CharField(max_length=40)
    data_id = models.CharField(max_length=64, help_text="scores on different data are never compared")
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
    wall_seconds = models.FloatField(default=0, help_text="time the search has been running, over all starts")
    experiments_begun = models.PositiveIntegerField(default=0)
    seed_key = models.CharField(max_length=64, default=new_seed_key, editable=False)
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)

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
    def noise_key(self) -> dict[str, Any]:
        """What a noise floor must have been measured on to hold here, but for the class of machine."""
        return {
            "benchmark": self.benchmark,
            "preset": self.preset,
            "start_tree": self.start_tree,
            "data_id": self.data_id,
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

    def pause(self, reason: str = "") -> None:
        self._change({self.State.ACTIVE}, self.State.PAUSED, reason)

    def resume(self) -> None:
        self._change({self.State.PAUSED, self.State.EXHAUSTED}, self.State.ACTIVE, "")

    def exhaust(self, reason: str) -> None:
        self._change({self.State.ACTIVE}, self.State.EXHAUSTED, reason)

    def finish(self) -> None:
        self._change({self.State.ACTIVE, self.State.PAUSED, self.State.EXHAUSTED}, self.State.FINISHED, "")

    def _change(self, before: set[State], after: State, reason: str) -> None:
        Project.objects.filter(pk=self.pk, state__in=before).update(state=after, state_reason=reason)
        self.refresh_from_db(fields=["state", "state_reason"])


class ThreadQuerySet(models.QuerySet["Thread"]):
    def advanceable(self) -> ThreadQuerySet:
        live = (Project.State.ACTIVE, Project.State.EXHAUSTED)
        return self.filter(state=Thread.State.ACTIVE, project__state__in=live)


class Thread(models.Model):
    """One line of inquiry in a project: a git branch, a researcher, a head, experiments one after another."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"
        HALTED = "halted"  # a step failed; `note` holds the traceback
        FINISHED = "finished"  # its researcher has nothing left to propose

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="threads")
    number = models.PositiveIntegerField()
    researcher = models.CharField(max_length=40)
    head = models.CharField(max_length=40)
    state = models.CharField(max_length=12, choices=State, default=State.ACTIVE)
    note = models.TextField(blank=True, help_text="what the thread was last told, or why it halted")
    directives = models.JSONField(default=dict, blank=True, help_text="focus and forbid, by technique or file")
    steered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+",
        help_text="who started it or gave the newest steering: may not approve its requests",
    )  # fmt: skip
    held_by = models.CharField(max_length=40, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(default=timezone.now)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="thread_number")]

    def __str__(self) -> str:
        return f"{self.project.name}/thread-{self.number}"

    @property
    def branch(self) -> str:
        return f"refs/heads/thread-{self.number}"

    @property
    def waiting_candidate(self) -> Candidate | None:
        """An implemented idea that has no experiment yet."""
        return self.candidates.filter(experiment__isnull=True).order_by("pk").first()

    def hold(self, owner: str) -> bool:
        """Take the exclusive, expiring right to advance this thread."""
        now = timezone.now()
        free = Q(held_until__isnull=True) | Q(held_until__lt=now) | Q(held_by=owner)
        return Thread.objects.filter(free, pk=self.pk).update(held_by=owner, held_until=now + ADVANCE_HOLD) == 1

    def let_go(self, owner: str) -> None:
        Thread.objects.filter(pk=self.pk, held_by=owner).update(held_by="", held_until=None)

    def advance_head(self, old: str, new: str, note: str = "") -> bool:
        moved = Thread.objects.filter(pk=self.pk, head=old).update(head=new, note=note)
        self.refresh_from_db(fields=["head", "note"])
        return moved == 1

    def tell(self, note: str) -> None:
        Thread.objects.filter(pk=self.pk).update(note=note)

    def halt(self, traceback: str) -> None:
        Thread.objects.filter(pk=self.pk).update(state=self.State.HALTED, note=traceback)

    def finish(self, note: str) -> None:
        Thread.objects.filter(pk=self.pk, state=self.State.ACTIVE).update(state=self.State.FINISHED, note=note)

    def pause(self) -> None:
        Thread.objects.filter(pk=self.pk, state=self.State.ACTIVE).update(state=self.State.PAUSED)

    def resume(self) -> None:
        idle = (self.State.PAUSED, self.State.HALTED, self.State.FINISHED)
        Thread.objects.filter(pk=self.pk, state__in=idle).update(state=self.State.ACTIVE, note="")
