"""Experiment: a comparison under a rule fixed beforehand. Its trials, one execution each, are in trial.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Max, Q
from django.utils import timezone

from benchmarks.contract import Preset
from research.models.audit import AuditEntry
from research.models.candidate import Candidate
from research.models.data_use import DataUse
from research.models.event import Event
from research.models.ids import new_id
from research.models.machine import CONFIRM_LEVEL, SCREENING
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.models.thread import Thread
from research.validation import rules
from research.validation.outcomes import Pooled
from research.validation.records import Evidence, PairedScore, Rule, Stage, VerdictKind

if TYPE_CHECKING:
    from research.models.trial import Result

MOST_SEEDS = 24  # pairs that may be asked for at once
CANCELLED = "was cancelled"  # of an event, before the reason


class ExperimentQuerySet(models.QuerySet["Experiment"]):
    def running(self) -> ExperimentQuerySet:
        return self.filter(state=Experiment.State.RUNNING)

    def refusing_repeats(self) -> ExperimentQuerySet:
        """Running, or settled. One that stopped before it could tell is no dead end: it may be tried again."""
        return self.exclude(state=Experiment.State.CANCELLED).exclude(verdict__kind=str(VerdictKind.INCONCLUSIVE))

    def refusing_rewrites(self) -> ExperimentQuerySet:
        """The same for code of a researcher's own, where a stop that saw no gain is an end too.

        A catalogue has few arms and draws them again on purpose; a model that writes the same again only forgot.
        """
        could_not_tell = Q(verdict__kind=str(VerdictKind.INCONCLUSIVE)) & ~Q(verdict__relative__lte=0)
        return self.exclude(state=Experiment.State.CANCELLED).exclude(could_not_tell)

    def isolation(self) -> dict[int, int]:
        """By pk the lowest isolation level among the results of each; those without a result are left out."""
        found = self.filter(trials__result__isnull=False).order_by().values_list("pk")
        return dict(found.annotate(level=models.Min("trials__result__isolation_level")))


class Comparisons(models.Manager["Experiment"]):
    """All but short checks: those compare nothing, so no list, count or verdict may meet one."""

    def get_queryset(self) -> ExperimentQuerySet:
        return ExperimentQuerySet(self.model, using=self._db).exclude(purpose=Experiment.Purpose.CHECK)


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
        TRANSFER = "transfer"  # the champion against the start at another preset or size
        RIVAL = "rival"  # a tree from elsewhere against the champion
        FIDELITY = "fidelity"  # what another preset screened, at the project's own
        CHECK = "check"  # whether a change runs at all; one trial, never compared, shown or counted

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
    preset = models.CharField(max_length=40, blank=True, help_text="where it is not the project's")
    problems = models.JSONField(
        default=list, blank=True, help_text="of a benchmark of many: what it measures, fixed when it is made"
    )
    trusted = models.BooleanField(default=False, help_text="the code of both arms ships with the lab")
    machine_class = models.CharField(
        max_length=120, blank=True, help_text="the only class of machine that measures it; empty: any"
    )
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    served = models.DateTimeField(null=True, blank=True, help_text="when a machine last took a pair of it")
    created = models.DateTimeField(default=timezone.now)
    ended = models.DateTimeField(null=True, blank=True)

    objects = Comparisons.from_queryset(ExperimentQuerySet)()
    every = ExperimentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(  # a check takes no number: those of experiments, and their seeds, do not move
                fields=["project", "number"], condition=~Q(purpose="check"), name="experiment_number"
            )
        ]
        indexes = [models.Index(fields=["thread"], condition=Q(state="running"), name="running_experiment")]

    def __str__(self) -> str:
        return f"experiment {self.number} of {self.project.name}"

    def save(self, *args: Any, **options: Any) -> None:
        if self._state.adding:
            commits = {self.baseline_commit, self.candidate_commit}
            self.trusted = not self.is_check and Candidate.all_trusted(self.project, commits)
        super().save(*args, **options)

    def distrust(self) -> None:
        """An arm of it is code from elsewhere that is no candidate. Before its trials are planned."""
        Experiment.every.filter(pk=self.pk).update(trusted=False)
        self.refresh_from_db(fields=["trusted"])

    @property
    def is_check(self) -> bool:
        return self.purpose == self.Purpose.CHECK

    @property
    def sizes(self) -> Preset:
        return self.project.contract.preset(self.preset or self.project.preset)

    def preset_at(self, stage: str) -> str:
        """The preset of a stage's trials where it is not the project's, else empty. What screens may be cheaper."""
        screens = self.purpose == self.Purpose.COMPARE and stage in (Stage.SCREEN, Stage.EXTEND)
        named = self.preset or (self.project.screen_preset if screens else "")
        return "" if named == self.project.preset else named

    def shares_baseline(self, stage: str) -> bool:
        """Whether the baseline arms of a stage may be those of other experiments of the same commit.

        Where arms run one after another, while screening, where what screening stopped is measured at the project's
        preset, and for rivals: all of them meet the same seeds, and the baseline's trials on these are not repeated.
        What may be merged is confirmed afresh, both arms in turn.
        """
        screens = self.purpose == self.Purpose.COMPARE and stage in (Stage.SCREEN, Stage.EXTEND)
        screens |= self.purpose in (self.Purpose.FIDELITY, self.Purpose.RIVAL)
        preset = self.preset_at(stage)
        sizes = self.project.contract.preset(preset) if preset else self.project.sizes
        return screens and not sizes.side_by_side

    def problems_of(self, pair: int) -> list[str]:
        """What a pair measures, both arms alike: all its problems; where a floor is to span them, one after another."""
        turns = self.problems and self.purpose in (self.Purpose.NOISE, self.Purpose.BASELINE)
        return [self.problems[pair % len(self.problems)]] if turns else list(self.problems)

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
            return self.trials.plan_pairs(self, stage, pairs, split)

    def is_idle(self) -> bool:
        """No trial waits or runs: the rows are complete and can be judged."""
        return not self.trials.unfinished().exists()

    def keep_to(self, machine_class: str) -> bool:
        """From now on only this class of machine measures it. True where none was fixed before."""
        free = Experiment.every.filter(pk=self.pk, machine_class="")
        kept = free.update(machine_class=machine_class) == 1
        self.refresh_from_db(fields=["machine_class"])
        return kept

    def end(self) -> bool:
        """True once: for the caller that ends it. What still waits is not measured any more."""
        return self._close(self.State.ENDED)

    def cancel(self, why: str = "", by: User | None = None) -> bool:
        with transaction.atomic():
            if closed := self._close(self.State.CANCELLED):
                words = f"experiment {self.number} {CANCELLED}" + (f": {why}" if why else "")
                Event.record(Event.Kind.EXPERIMENT, words, experiment=self, actor=by)
        return closed

    def why_cancelled(self) -> str:
        """What `cancel` was told, without its full stop; only the event keeps it. Empty where it was told nothing."""
        told = Event.objects.filter(experiment=self, kind=Event.Kind.EXPERIMENT).order_by("seq").last()
        return told.text.partition(f"{CANCELLED}: ")[2].rstrip(".") if told else ""

    @property
    def may_be_stopped(self) -> bool:
        """Whether it is one that a person may stop: nothing else waits for it."""
        return self.purpose in (self.Purpose.COMPARE, self.Purpose.REPLICATE)

    def stop(self, by: User, reason: str) -> None:
        """Measure no more of it, without a verdict: what is known of it already settles the question for a person.

        What runs is finished and kept; its researcher goes on with something else. Raises NotMergeable.
        """
        Membership.require(by, self.project, Role.MEMBER, "stop an experiment")
        if not self.may_be_stopped:
            raise NotMergeable("only what compares a candidate can be stopped")
        if not reason:
            raise NotMergeable("say why: whoever meets it later wants to know")
        with transaction.atomic():
            if not self.cancel(f"{by} stopped it: {reason}", by):
                raise NotMergeable("it is not being measured any more")
            AuditEntry.record(by, "stop an experiment", self.project, experiment=self.number, reason=reason)

    def complete_pairs(self) -> tuple[PairedScore, ...]:
        """The pairs with two scores, in the order they were planned."""
        return tuple(
            PairedScore(Stage(stage), pair, one.trial.seed, one.value, two.value, one.is_censored, two.is_censored)
            for (stage, pair), (one, two) in self._results().items()
        )

    def scores(self) -> list[tuple[float, float]]:
        """(baseline, candidate) of the complete pairs of every stage, noise and closing too."""
        return [(one.value, two.value) for one, two in self._results().values()]

    def by_seed(self) -> list[tuple[int, float, float]]:
        """(seed, baseline, candidate) of the same pairs as `scores`."""
        return [(one.trial.seed, one.value, two.value) for one, two in self._results().values()]

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
                rule=original.rule, wanted_pairs=pairs, problems=original.problems,
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
            running = Experiment.every.running().filter(pk=self.pk)
            if not running.update(state=state, ended=timezone.now()):
                return False
            self.trials.cancel_waiting()
        return True
