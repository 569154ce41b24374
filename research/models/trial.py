"""Trial and Result: one execution of one commit with one seed, leased by a worker, and its frozen outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from django.db import models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Subquery, Value, When
from django.utils import timezone

from benchmarks.contract import Preset
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.ids import new_id
from research.models.machine import LEASE_TIME, Lease, Machine
from research.models.project import Project
from research.validation.records import Stage

MAX_ATTEMPTS = 4
FEW, MOST_LOOKED_AT = 4, 64  # waiting trials, for one that may begin
CHECK = "check"  # the stage of a short check: one trial, no pair


class TrialQuerySet(models.QuerySet["Trial"]):
    def waiting(self) -> TrialQuerySet:
        return self.filter(state=Trial.State.WAITING)

    def unfinished(self) -> TrialQuerySet:
        return self.filter(state__in=(Trial.State.WAITING, Trial.State.LEASED))

    def cancel_waiting(self) -> None:
        self.waiting().update(state=Trial.State.CANCELLED)

    def plan_pairs(self, experiment: Experiment, stage: str, pairs: int, split: str) -> int:
        """Make both arms of pairs that are not there yet, cores swapped from pair to pair; the number of new trials."""
        known = set(self.filter(experiment=experiment, stage=stage).values_list("pair", "arm"))
        number = 0 if experiment.shares_baseline(stage) else experiment.number
        project, preset = experiment.project, experiment.preset_at(stage)
        commits = {Trial.Arm.BASELINE: experiment.baseline_commit, Trial.Arm.CANDIDATE: experiment.candidate_commit}
        made = [
            Trial(
                experiment=experiment, stage=stage, pair=pair, arm=arm, project=project, commit=commit, split=split,
                seed=project.seed(number, stage, pair), slot=(pair + (arm == Trial.Arm.CANDIDATE)) % 2, preset=preset,
                problems=experiment.problems_of(pair),
            )
            for pair in range(pairs)
            for arm, commit in commits.items()
            if (pair, str(arm)) not in known
        ]  # fmt: skip
        self.bulk_create(made, ignore_conflicts=True)  # somebody else planned them in between
        return len(made)

    def comparing(self) -> TrialQuerySet:
        """Without short checks, which are no measurement."""
        return self.exclude(stage=CHECK)

    def plan_check(self, experiment: Experiment) -> None:
        """Its only trial, scored on the text it trains on: validation text takes no part in a check."""
        split = "train" if experiment.sizes.confirm_data else ""
        Trial.objects.get_or_create(
            experiment=experiment, stage=CHECK, pair=0, arm=Trial.Arm.CANDIDATE,
            defaults={
                "project": experiment.project, "seed": experiment.project.seed(0, CHECK, 0),
                "commit": experiment.candidate_commit, "slot": 0, "split": split, "preset": experiment.preset,
                "problems": experiment.problems,
            },
        )  # fmt: skip

    def next_for(self, machine: Machine) -> TrialQuerySet:
        """What waits for a machine, in the order in which it is given out.

        Projects take turns. Of one, a candidate that is being confirmed comes first, the oldest one: what is begun is
        ended, and `main` moves sooner. Else the experiment served longest ago, so that threads and the noise floor take
        turns. A machine takes checks and pairs by turns where both wait: a check waits for one pair, and no pair for
        more than one check.
        """
        newest = Lease.objects.filter(machine=machine).order_by("-pk").values_list("trial__stage").first()
        turn = When(stage=CHECK, then=Value(newest == (CHECK,)))
        live = (Project.State.ACTIVE, Project.State.EXHAUSTED)
        waiting = self.waiting().filter(
            machine.takes(), experiment__state=Experiment.State.RUNNING, project__state__in=live
        )
        of_project = Experiment.every.filter(project=OuterRef("project"), served__isnull=False).order_by("-served")
        confirms = Q(stage=str(Stage.CONFIRM), experiment__purpose=Experiment.Purpose.COMPARE)
        return waiting.order_by(
            Case(turn, default=Value(newest != (CHECK,)), output_field=models.BooleanField()),
            Subquery(of_project.values("served")[:1]).asc(nulls_first=True),
            Case(When(confirms, then=F("experiment")), output_field=models.BigIntegerField()).asc(nulls_last=True),
            F("experiment__served").asc(nulls_first=True),
            "pk",
        )

    def _looked_at(self, machine: Machine) -> Iterator[Trial]:
        """What waits for a machine, some at a time: mostly the first may begin."""
        if not self.waiting().exists():  # of a machine that asks again and again: it costs far less than their order
            return
        following = self.next_for(machine).prefetch_related("experiment", "project")
        few = list(following[:FEW])
        yield from few
        if len(few) == FEW:
            yield from following[FEW:MOST_LOOKED_AT]

    def claim_pair(
        self, machine: Machine, worker: str, may_begin: Callable[[Trial], bool] = lambda _: True
    ) -> list[Lease]:
        """Lease both arms of the next waiting pair that may begin, or a short check alone, or nothing.

        One short transaction; a pair taken by somebody else in between is left alone.
        """
        first = next((trial for trial in self._looked_at(machine) if may_begin(trial)), None)
        if first is None:
            return []
        place = {"experiment_id": first.experiment_id, "stage": first.stage, "pair": first.pair}
        with transaction.atomic():
            trials = list(Trial.objects.waiting().filter(**place).select_related("experiment").order_by("pk"))
            if len(trials) == 1 and first.stage != CHECK:
                # Measured alone, on a quieter machine, it would have an advantage.
                trials[0].lose("the other arm of its pair ended without it; a new pair takes its place")
                return []
            leases = [lease for trial in trials if (lease := trial.lease(machine, worker))]
            if leases:
                Experiment.every.filter(pk=first.experiment_id).update(served=timezone.now())
        return leases

    def return_expired(self) -> int:
        """Sweep: a trial whose worker fell silent waits again (or fails after MAX_ATTEMPTS)."""
        with transaction.atomic():  # both arms of a pair come back at once, to be measured together again
            lost = list(Lease.objects.expired().select_related("trial"))
            return sum(lease.trial.give_back(lease, f"the lease of {lease.worker} expired") for lease in lost)


class Trial(models.Model):
    """One execution of one commit with one seed; a lost machine makes a new lease, not a new trial."""

    class State(models.TextChoices):
        WAITING = "waiting"
        LEASED = "leased"
        ENDED = "ended"  # has a Result, scored or failed
        LOST = "lost"  # no machine could finish it in MAX_ATTEMPTS leases, or its pair is broken
        CANCELLED = "cancelled"

    class Arm(models.TextChoices):
        BASELINE = "baseline"
        CANDIDATE = "candidate"

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="trials")
    experiment = models.ForeignKey(Experiment, models.CASCADE, related_name="trials")
    arm = models.CharField(max_length=10, choices=Arm)
    stage = models.CharField(max_length=10)
    pair = models.PositiveIntegerField()
    slot = models.PositiveIntegerField(help_text="which core or device of the machine")
    seed = models.PositiveIntegerField()
    commit = models.CharField(max_length=40)
    split = models.CharField(
        max_length=20, blank=True, help_text="the validation split that scores it; empty: its inputs are drawn anew"
    )
    problems = models.JSONField(default=list, blank=True, help_text="of a benchmark of many: those that it measures")
    preset = models.CharField(max_length=40, blank=True, help_text="where it is not the project's")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING, db_index=True)
    generation = models.PositiveIntegerField(default=0, help_text="of the newest lease")
    note = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)
    ended = models.DateTimeField(null=True, blank=True)

    objects = TrialQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "stage", "pair", "arm"], name="one_trial_an_arm")]
        indexes = [models.Index(fields=["commit"])]

    def __str__(self) -> str:
        return f"{self.stage} {self.pair} {self.arm} of experiment {self.experiment_id}"

    @property
    def name(self) -> str:
        return f"{self.stage} pair {self.pair + 1}, {self.arm}"

    @property
    def sizes(self) -> Preset:
        return self.project.contract.preset(self.preset or self.experiment.preset or self.project.preset)

    def lease(self, machine: Machine, worker: str) -> Lease | None:
        """Claim by conditional update; None where somebody else was faster."""
        now = timezone.now()
        with transaction.atomic(savepoint=False):
            mine = Trial.objects.waiting().filter(pk=self.pk)
            if not mine.update(state=self.State.LEASED, generation=F("generation") + 1):
                return None
            self.refresh_from_db(fields=["state", "generation"])
            self._tell_of(Event.Kind.TRIAL_STARTED, f"{self.name}: on {machine.name}")
            return Lease.objects.create(
                trial=self, machine=machine, worker=worker, generation=self.generation, granted=now,
                expires=now + LEASE_TIME,
            )  # fmt: skip

    def lose(self, why: str) -> None:
        """Give up on a waiting trial: its pair is broken and made up for by another."""
        with transaction.atomic():
            if Trial.objects.waiting().filter(pk=self.pk).update(state=self.State.LOST, note=why):
                self._tell_of(Event.Kind.TRIAL_ENDED, f"{self.name}: lost, {why}")

    def give_back(self, lease: Lease, why: str) -> bool:
        """End a lease without a result: the trial waits again, or is lost after MAX_ATTEMPTS leases."""
        with transaction.atomic():
            if not lease.release():
                return False
            again = self.State.WAITING if lease.generation < MAX_ATTEMPTS else self.State.LOST
            if Experiment.every.filter(pk=self.experiment_id).exclude(state=Experiment.State.RUNNING).exists():
                again = self.State.CANCELLED
            Trial.objects.filter(pk=self.pk, generation=lease.generation).update(state=again, note=why)
            self._tell_of(Event.Kind.TRIAL_ENDED, f"{self.name}: {again.value}, {why}")
        return True

    def start_over(self, lease: Lease, why: str) -> Lease | None:
        """A new lease for the same worker, at once: what came so far belongs to the old one. None: it may not go on."""
        with transaction.atomic():
            return self.lease(lease.machine, lease.worker) if self.give_back(lease, why) else None

    def measured_before(self, worker: str, most_seconds: float) -> Result | None:
        """The result that this baseline arm may share: of this worker, so of this device, and not long ago.

        Never that of a candidate which has become the baseline since: it was chosen for its good luck, too.
        """
        if self.arm != self.Arm.BASELINE or not self.experiment.shares_baseline(self.stage):
            return None
        since = timezone.now() - timedelta(seconds=most_seconds)
        own = Lease.objects.filter(trial=OuterRef("trial"), generation=OuterRef("generation"), worker=worker)
        same = Result.objects.filter(
            Exists(own), trial__project=self.project_id, trial__arm=self.arm, trial__commit=self.commit,
            trial__seed=self.seed, trial__stage=self.stage, trial__preset=self.preset, trial__split=self.split,
            trial__problems=self.problems, trial__ended__gte=since, score__isnull=False, device_seconds__gt=0,
        )  # fmt: skip
        return same.select_related("trial").order_by("-pk").first()

    def finish(self, lease: Lease, **result: object) -> bool:
        """Store the result, if the lease is still ours. False: fenced, nothing was written."""
        with transaction.atomic(savepoint=False):
            if not lease.release():
                return False
            outcome = Result.objects.create(trial=self, generation=lease.generation, **result)
            Trial.objects.filter(pk=self.pk).update(state=self.State.ENDED, ended=timezone.now())
            self._tell_of(Event.Kind.TRIAL_ENDED, f"{self.name}: {outcome}")
        return True

    def _tell_of(self, kind: str, text: str) -> None:
        if self.stage != CHECK:  # its researcher is told; the feed and the pages are not
            Event.record(kind, text, experiment=self.experiment)


class Measurements(models.Manager["Result"]):
    """All but those of short checks, whose scores nobody may see or add up."""

    def get_queryset(self) -> models.QuerySet[Result]:
        return super().get_queryset().exclude(trial__stage=CHECK)


class Result(models.Model):
    """The frozen outcome of a finished trial."""

    trial = models.OneToOneField(Trial, models.CASCADE, related_name="result")
    generation = models.PositiveIntegerField()
    machine = models.ForeignKey(Machine, models.PROTECT, related_name="results")
    score = models.FloatField(null=True, blank=True, help_text="the primary metric, computed by the judge")
    failure = models.CharField(max_length=20, blank=True)
    message = models.TextField(blank=True)
    observations = models.JSONField(default=list, help_text="integrity observations of the evaluator")
    metrics = models.JSONField(default=dict)
    seconds = models.JSONField(default=dict, help_text="wall and CPU seconds of each phase")
    device_seconds = models.FloatField(default=0, help_text="what the trial costs the budget")
    hashes = models.JSONField(default=dict, help_text="judge, data, split, environment, tree, cache, weights")
    surroundings = models.JSONField(default=dict, help_text="device, its clocks, sandbox, seed")
    isolation_level = models.PositiveIntegerField()
    machine_class = models.CharField(max_length=120)
    log = models.ForeignKey("Artifact", models.SET_NULL, null=True, blank=True, related_name="+")
    losses = models.ForeignKey("Artifact", models.SET_NULL, null=True, blank=True, related_name="+")
    sample = models.TextField(blank=True, help_text="what the trained model writes; data, never markup")
    created = models.DateTimeField(default=timezone.now)

    objects = Measurements()
    every = models.Manager["Result"]()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(score__isnull=False, failure="") | (Q(score__isnull=True) & ~Q(failure="")),
                name="scored_or_failed",
            )
        ]

    @property
    def value(self) -> float:
        """The score of a result that has one."""
        assert self.score is not None
        return self.score

    @property
    def is_censored(self) -> bool:
        """Whether the trial hit its cap: the score is the cap then, and the true one at least as bad."""
        return bool(self.metrics.get("censored"))

    def __str__(self) -> str:
        return f"{self.score:.5f}" if self.score is not None else self.failure
