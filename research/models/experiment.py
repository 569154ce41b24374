"""Experiment and Trial: a comparison under a rule fixed beforehand, and one execution of one commit with one seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import F, Max, Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.candidate import Candidate
from research.models.data_use import DataUse
from research.models.event import Event
from research.models.ids import new_id
from research.models.machine import CONFIRM_LEVEL, LEASE_TIME, SCREENING, Lease, Machine
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.models.thread import Thread
from research.validation import rules
from research.validation.records import Evidence, PairedScore, Pooled, Rule, Stage, VerdictKind

MAX_ATTEMPTS = 4
MOST_SEEDS = 24  # pairs that may be asked for at once


class ExperimentQuerySet(models.QuerySet["Experiment"]):
    def running(self) -> ExperimentQuerySet:
        return self.filter(state=Experiment.State.RUNNING)

    def refusing_repeats(self) -> ExperimentQuerySet:
        """Running, or settled. One that stopped before it could tell is no dead end: it may be tried again."""
        return self.exclude(state=Experiment.State.CANCELLED).exclude(verdict__kind=str(VerdictKind.INCONCLUSIVE))

    def isolation(self) -> dict[int, int]:
        """By pk the lowest isolation level among the results of each; those without a result are left out."""
        found = Result.objects.filter(trial__experiment__in=self).values_list("trial__experiment")
        return dict(found.annotate(level=models.Min("isolation_level")))


class Experiment(models.Model):
    """The comparison of one candidate with one baseline; ends in one verdict.

    Noise floors (A/A) and the closing measurement of a campaign are experiments too, without a candidate.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        ENDED = "ended"
        CANCELLED = "cancelled"

    class Purpose(models.TextChoices):
        COMPARE = "compare"
        NOISE = "noise"
        CLOSING = "closing"
        REPLICATE = "replicate"  # more pairs for an experiment that has its verdict
        PARENT = "parent"  # one of the branches of a combination, alone on `main`
        BASELINE = "baseline"  # a new champion against itself
        AUDIT = "audit"  # the champion against the start, after so many merges
        ABLATION = "ablation"  # the champion without one of its changes

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    key = models.CharField(max_length=80, unique=True, help_text="makes planning idempotent")
    project = models.ForeignKey(Project, models.CASCADE, related_name="experiments")
    thread = models.ForeignKey(Thread, models.CASCADE, null=True, blank=True, related_name="experiments")
    candidate = models.OneToOneField(Candidate, models.CASCADE, null=True, blank=True, related_name="experiment")
    original = models.ForeignKey("self", models.CASCADE, null=True, blank=True, related_name="replicates")
    purpose = models.CharField(max_length=12, choices=Purpose, default=Purpose.COMPARE)
    label = models.CharField(max_length=160, blank=True, help_text="what it measures, where it has no candidate")
    number = models.PositiveIntegerField()
    baseline_commit = models.CharField(max_length=40)
    candidate_commit = models.CharField(max_length=40)
    rule = models.JSONField(help_text="frozen before the first trial")
    hypothesis = models.PositiveIntegerField(
        null=True, help_text="its turn among those the project confirmed or tried to"
    )
    bar = models.FloatField(null=True, help_text="the e-value that the campaign asks of it, fixed at the first look")
    confirm_split = models.CharField(max_length=20, blank=True, help_text="what confirms it, fixed at the first look")
    wanted_pairs = models.PositiveIntegerField(default=0, help_text="of a replicate: what a person asked for")
    trusted = models.BooleanField(default=False, help_text="the code of both arms ships with the lab")
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    served = models.DateTimeField(null=True, blank=True, help_text="when a machine last took a pair of it")
    created = models.DateTimeField(default=timezone.now)
    ended = models.DateTimeField(null=True, blank=True)

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="experiment_number")]
        indexes = [models.Index(fields=["thread"], condition=Q(state="running"), name="running_experiment")]

    def __str__(self) -> str:
        return f"experiment {self.number} of {self.project.name}"

    def save(self, *args: Any, **options: Any) -> None:
        if self._state.adding:
            self.trusted = Candidate.all_trusted(self.project, {self.baseline_commit, self.candidate_commit})
        super().save(*args, **options)

    @property
    def subject(self) -> Candidate | None:
        """What is compared: a replicate compares the candidate of its original."""
        return self.original.candidate if self.original else self.candidate

    def plan(self, stage: str, pairs: int) -> int:
        """Make the trials of a stage up to `pairs` pairs. Seed and core order are fixed by number, not by chance now.

        Returns the number of new trials; calling it again makes none.
        """
        with transaction.atomic():  # both arms appear at once: no machine may take one alone
            split = DataUse.objects.take(self, stage)
            return sum(self._plan_pair(stage, pair, split) for pair in range(pairs))

    def _plan_pair(self, stage: str, pair: int, split: str) -> int:
        made = 0
        seed = self.project.seed(self.number, stage, pair)
        for arm, commit in (
            (Trial.Arm.BASELINE, self.baseline_commit),
            (Trial.Arm.CANDIDATE, self.candidate_commit),
        ):
            slot = (pair + (arm == Trial.Arm.CANDIDATE)) % 2  # the arms swap cores from pair to pair
            _, new = Trial.objects.get_or_create(
                experiment=self, stage=stage, pair=pair, arm=arm,
                defaults={"project": self.project, "seed": seed, "commit": commit, "slot": slot, "split": split},
            )  # fmt: skip
            made += new
        return made

    def is_idle(self) -> bool:
        """No trial waits or runs: the rows are complete and can be judged."""
        return not self.trials.filter(state__in=(Trial.State.WAITING, Trial.State.LEASED)).exists()

    def end(self) -> bool:
        """True once: for the caller that ends it. What still waits is not measured any more."""
        return self._close(self.State.ENDED)

    def cancel(self) -> None:
        with transaction.atomic():
            if self._close(self.State.CANCELLED):
                Event.record(Event.Kind.EXPERIMENT, f"experiment {self.number} was cancelled", experiment=self)

    def complete_pairs(self) -> tuple[PairedScore, ...]:
        """The pairs with two scores, in the order they were planned."""
        return tuple(
            PairedScore(Stage(stage), pair, one.trial.seed, one.value, two.value, one.is_censored, two.is_censored)
            for (stage, pair), (one, two) in self._results().items()
        )

    def scores(self) -> list[tuple[float, float]]:
        """(baseline, candidate) of the complete pairs of every stage, noise and closing too."""
        return [(one.value, two.value) for one, two in self._results().values()]

    def _results(self) -> dict[tuple[str, int], tuple[Result, Result]]:
        rows: dict[tuple[str, int], dict[str, Result]] = {}
        trials = self.trials.filter(result__score__isnull=False).select_related("result").order_by("pk")
        if not self.trusted:  # where the sandbox was too weak, its numbers are no evidence
            trials = trials.filter(Q(stage__in=SCREENING) | Q(result__isolation_level__gte=CONFIRM_LEVEL))
        for trial in trials:
            rows.setdefault((trial.stage, trial.pair), {})[trial.arm] = trial.result
        return {place: (arms["baseline"], arms["candidate"]) for place, arms in rows.items() if len(arms) == 2}

    def take_turn(self, bar: Callable[[int, int], float]) -> None:
        """Become the next hypothesis of the campaign: `bar(t, confirmed so far)` is what its e-value has to reach.

        Once, at the first confirm look, and never changed: what is decided elsewhere later has no say in it.
        """
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=self.project_id)
            others = Experiment.objects.filter(project=self.project_id)
            turn = 1 + (others.aggregate(last=Max("hypothesis"))["last"] or 0)
            confirmed = others.filter(hypothesis__isnull=False, verdict__kind=str(VerdictKind.IMPROVED)).count()
            free = Experiment.objects.filter(pk=self.pk, hypothesis=None)
            free.update(hypothesis=turn, bar=bar(turn, confirmed))
        self.refresh_from_db(fields=["hypothesis", "bar"])

    def more_seeds(self, by: User, pairs: int = 4) -> Experiment:
        """Measure so many more pairs of an experiment that has its verdict, as an experiment of their own.

        Neither the verdict nor a merge depends on what comes out; `pooled` says what all pairs say together.
        """
        original = self.original or self
        Membership.require(by, self.project, Role.MEMBER, "ask for more seeds")
        if not 2 <= pairs <= MOST_SEEDS:
            raise NotMergeable(f"ask for 2 to {MOST_SEEDS} pairs at a time")
        with transaction.atomic():
            Experiment.objects.select_for_update().get(pk=original.pk)
            if not Experiment.objects.filter(pk=original.pk, verdict__isnull=False).exists():
                raise NotMergeable("it has no verdict yet; the pairs it needs come by themselves")
            if original.replicates.running().exists():
                raise NotMergeable("more pairs of it are being measured already")
            if self.project.state == Project.State.FINISHED:
                raise NotMergeable("the project is finished; resume it first")
            replicate = Experiment.objects.create(
                key=f"replicate-{original.public_id}-{original.replicates.count() + 1}", project=self.project,
                original=original, purpose=self.Purpose.REPLICATE, number=self.project.next_experiment_number(),
                baseline_commit=original.baseline_commit, candidate_commit=original.candidate_commit,
                rule=original.rule, wanted_pairs=pairs,
            )  # fmt: skip
            replicate.plan(str(Stage.CONFIRM), pairs)
            AuditEntry.record(by, "more seeds", self.project, experiment=original.number, pairs=pairs)
            words = f"{by} asked for {pairs} more pairs of experiment {original.number}"
            Event.record(Event.Kind.MORE_SEEDS, words, thread=original.thread, experiment=original, actor=by)
        return replicate

    def pooled(self) -> Pooled | None:
        """What the confirm pairs of this experiment and of all its replicates say together; None without any."""
        return rules.pool(self._evidence(), Rule.from_json(self.rule))

    def pairs_to_decide(self) -> int | None:
        """How many more pairs would probably settle it; 0 where they have; None where no affordable number would."""
        return rules.pairs_to_decide(self._evidence(), Rule.from_json(self.rule))

    def _evidence(self) -> list[Evidence]:
        """The frozen evidence of the original and of its replicates, in order."""
        original = self.original or self
        parts = Experiment.objects.filter(Q(pk=original.pk) | Q(original=original), verdict__isnull=False)
        found = parts.order_by("number").values_list("verdict__evidence", flat=True)
        return [Evidence.from_json(evidence) for evidence in found]

    def _close(self, state: State) -> bool:
        with transaction.atomic():
            running = Experiment.objects.running().filter(pk=self.pk)
            if not running.update(state=state, ended=timezone.now()):
                return False
            self.trials.filter(state=Trial.State.WAITING).update(state=Trial.State.CANCELLED)
        return True


class TrialQuerySet(models.QuerySet["Trial"]):
    def waiting(self) -> TrialQuerySet:
        return self.filter(state=Trial.State.WAITING)

    def claim_pair(self, machine: Machine, worker: str) -> list[Lease]:
        """Lease both arms of the next waiting pair, or nothing.

        The experiment served longest ago comes first, so that threads and the noise floor take turns. One short
        transaction; a pair taken by somebody else in between is left alone.
        """
        live = (Project.State.ACTIVE, Project.State.EXHAUSTED)
        first = (
            self.waiting()
            .filter(machine.takes(), experiment__state=Experiment.State.RUNNING, project__state__in=live)
            .order_by(F("experiment__served").asc(nulls_first=True), "pk")
            .values("experiment_id", "stage", "pair")
            .first()
        )
        if first is None:
            return []
        with transaction.atomic():
            trials = list(Trial.objects.waiting().filter(**first).order_by("pk"))
            if len(trials) == 1:  # measured alone, on a quieter machine, it would have an advantage
                trials[0].lose("the other arm of its pair ended without it; a new pair takes its place")
                return []
            leases = [lease for trial in trials if (lease := trial.lease(machine, worker))]
            if leases:
                Experiment.objects.filter(pk=first["experiment_id"]).update(served=timezone.now())
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
    split = models.CharField(max_length=20, help_text="the validation split that scores it")
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

    def lease(self, machine: Machine, worker: str) -> Lease | None:
        """Claim by conditional update; None where somebody else was faster."""
        now = timezone.now()
        with transaction.atomic():
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
            if Experiment.objects.filter(pk=self.experiment_id).exclude(state=Experiment.State.RUNNING).exists():
                again = self.State.CANCELLED
            Trial.objects.filter(pk=self.pk, generation=lease.generation).update(state=again, note=why)
            self._tell_of(Event.Kind.TRIAL_ENDED, f"{self.name}: {again.value}, {why}")
        return True

    def finish(self, lease: Lease, **result: object) -> bool:
        """Store the result, if the lease is still ours. False: fenced, nothing was written."""
        with transaction.atomic():
            if not lease.release():
                return False
            outcome = Result.objects.create(trial=self, generation=lease.generation, **result)
            Trial.objects.filter(pk=self.pk).update(state=self.State.ENDED, ended=timezone.now())
            self._tell_of(Event.Kind.TRIAL_ENDED, f"{self.name}: {outcome}")
        return True

    def _tell_of(self, kind: str, text: str) -> None:
        Event.record(kind, text, experiment=self.experiment)


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
