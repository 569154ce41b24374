"""FoundTechnique: a confirmed change of a researcher's own, asked to become a technique; approved, it is one here.

Only a second person approves. What it applies is code from outside: candidates that use it are not trusted.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from benchmarks.catalogue import CHANGE, Technique
from benchmarks.found import Fit, constants_of, technique_from
from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.idea import Idea
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.models.thread import Thread
from research.validation.records import VerdictKind

NAME = re.compile(r"[a-z][a-z0-9_]{2,39}")
MOST_TUNABLES = 6
SMALLEST_SD = 0.001  # one experiment never says more exactly what a change is worth


class FoundTechniqueQuerySet(models.QuerySet["FoundTechnique"]):
    def in_catalogue(self, project: Project) -> FoundTechniqueQuerySet:
        """Approved for this benchmark, in projects that everybody who sees this one may see too."""
        seen = Membership.projects_seen_with(project).filter(benchmark=project.benchmark)
        return self.filter(project__in=seen, state=FoundTechnique.State.APPROVED).order_by("pk")

    def waiting(self) -> FoundTechniqueQuerySet:
        return self.filter(state=FoundTechnique.State.PROPOSED)

    def any_of(self, benchmark: str, names: Iterable[str]) -> bool:
        """Whether one of these is not the lab's own; also of those that were taken out again."""
        return self.filter(project__benchmark=benchmark, name__in=set(names)).exists()


class FoundTechnique(models.Model):
    class State(models.TextChoices):
        PROPOSED = "proposed"
        RETURNED = "returned"  # changes were asked for
        REJECTED = "rejected"
        APPROVED = "approved"  # in the catalogue of its benchmark, in this lab
        RETRACTED = "retracted"

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="found_techniques")
    experiment = models.OneToOneField(
        Experiment, models.CASCADE, related_name="found_technique", help_text="that confirmed it"
    )
    benchmark = models.CharField(max_length=40)
    name = models.CharField(max_length=40)
    title = models.CharField(max_length=160)
    family = models.CharField(max_length=40)
    hypothesis = models.TextField()
    source = models.CharField(max_length=300, help_text="experiment, researcher and model")
    patch = models.TextField(help_text="what it does, as a diff")
    tunables = models.JSONField(
        default=list, blank=True, help_text='[{"name", "default", "low", "high", "log", "integer"}]'
    )
    prior_gain = models.FloatField(help_text="the measured effect, shrunk; relative")
    prior_sd = models.FloatField()
    fit = models.JSONField(
        default=dict, blank=True, help_text="where it applies, as benchmarks.found.Fit; and the champion"
    )
    state = models.CharField(max_length=12, choices=State, default=State.PROPOSED)
    reason = models.TextField(blank=True, help_text="of the newest decision")
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)
    decided = models.DateTimeField(null=True, blank=True)

    objects = FoundTechniqueQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["benchmark", "name"], name="found_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def technique(self) -> Technique:
        own = f"{CHANGE}{self.experiment.candidate.idea.public_id}" if self.experiment.candidate else ""
        return technique_from(
            self.name, self.title, self.family, self.hypothesis, self.source, self.patch, self.tunables,
            self.prior_gain, self.prior_sd, own,
        )  # fmt: skip

    @classmethod
    def propose(
        cls, by: User, experiment: Experiment, taken: Iterable[str], said: Mapping[str, str],
        tunables: list[dict[str, Any]],
    ) -> FoundTechnique:  # fmt: skip
        """Ask for what an experiment confirmed to become a technique; again, where changes were asked for.

        `taken`: names that ship with the lab. `said`: name, title, family, hypothesis. Raises NotMergeable.
        """
        Membership.require(by, experiment.project, Role.MEMBER, "propose a technique")
        idea = may_become_technique(experiment)
        fields = {name: str(said.get(name, "")).strip() for name in ("name", "title", "family", "hypothesis")}
        _check_words(fields, set(taken))
        patch = experiment.candidate.diff.patch  # type: ignore[union-attr]
        knobs = [_knob(row, constants_of(patch)) for row in tunables[: MOST_TUNABLES + 1]]
        if len(knobs) > MOST_TUNABLES:
            raise NotMergeable(f"at most {MOST_TUNABLES} constants can be tunable")
        gain, sd = _worth(experiment)
        source = f"experiment {experiment.number} of {experiment.project.name}, found by {idea.researcher}"
        fields |= {"source": (source + (f" ({idea.model})" if idea.model else ""))[:300]}
        with transaction.atomic():
            known = cls.objects.select_for_update().filter(experiment=experiment).first()
            if known and known.state != cls.State.RETURNED:
                raise NotMergeable(f"it was proposed already, as {known.name}: it is {known.state}")
            row = known or cls(
                project=experiment.project, experiment=experiment, benchmark=experiment.project.benchmark
            )
            for name, value in {
                **fields,
                "patch": patch,
                "tunables": knobs,
                "prior_gain": gain,
                "prior_sd": sd,
            }.items():
                setattr(row, name, value)
            row.state, row.proposed_by, row.fit, row.reason = cls.State.PROPOSED, by, {}, ""
            try:
                with transaction.atomic():
                    row.save()
            except IntegrityError:
                raise NotMergeable(f"there is a found technique {row.name} already; choose another name") from None
            row._tell(by, "propose a technique", "proposed as a technique")
        return row

    def approve(self, by: User) -> None:
        """Into the catalogue of its benchmark, in this lab. A second person only."""
        self._may_decide(by, "approve it")
        if not self.fit or (self.fit["start"] and self.fit["champion"]):
            raise NotMergeable("it applies neither to the start nor to the champion, or that is not known yet")
        self._become(by, {self.State.PROPOSED}, self.State.APPROVED, "approve a technique", "is a technique now")
        self._list_again()

    def reject(self, by: User, reason: str) -> None:
        self._may_decide(by, "reject it")
        self._become(by, {self.State.PROPOSED}, self.State.REJECTED, "reject a technique", "was rejected", reason)

    def ask_for_changes(self, by: User, reason: str) -> None:
        self._may_decide(by, "ask for changes")
        self._become(by, {self.State.PROPOSED}, self.State.RETURNED, "return a technique", "needs changes", reason)

    def retract(self, by: User, reason: str) -> None:
        """Out of the catalogue again. What was measured with it stays."""
        Membership.require(by, self.project, Role.REVIEWER, "take a technique out")
        self._become(by, {self.State.APPROVED}, self.State.RETRACTED, "retract a technique", "was taken out", reason)
        self._list_again()

    def tried(self, fit: Fit, champion: str) -> None:
        """What trying it on the start, on the champion and below the others showed."""
        self.fit = {**vars(fit), "lost": list(fit.lost), "at": champion}
        with transaction.atomic():
            FoundTechnique.objects.filter(pk=self.pk).update(fit=self.fit)
            words = f"{self.name} was tried: {fit.kept} of {fit.others} techniques apply on top of it"
            Event.record(Event.Kind.NOTE, words, experiment=self.experiment)

    def _may_decide(self, by: User, act: str) -> None:
        Membership.require(by, self.project, Role.REVIEWER, act)
        if by == self.proposed_by and not self.project.single_person:
            raise NotMergeable("you proposed it: a second person decides")
        threads = Thread.objects.filter(experiments=self.experiment)
        Membership.require_second_person(by, self.project, threads, act)

    def _become(
        self, by: User, before: set[State], after: State, act: str, words: str, reason: str | None = None
    ) -> None:
        """`reason`: None where none is needed."""
        if reason is not None and not reason.strip():
            raise NotMergeable("say why: the reason stays beside it")
        fields = {"state": after, "decided_by": by, "decided": timezone.now(), "reason": (reason or "").strip()[:500]}
        with transaction.atomic():
            if not FoundTechnique.objects.filter(pk=self.pk, state__in=before).update(**fields):
                raise NotMergeable("somebody was faster; look at it again")
            self.refresh_from_db()
            self._tell(by, act, words, self.reason)

    def _tell(self, by: User, act: str, words: str, reason: str = "") -> None:
        AuditEntry.record(
            by, act, self.project, technique=self.name, experiment=self.experiment.number, reason=reason
        )  # fmt: skip
        text = f"{self.name} {words} by {by}" + (f": {reason}" if reason else "")
        Event.record(Event.Kind.TECHNIQUE, text, experiment=self.experiment, actor=by)

    def _list_again(self) -> None:
        """Every project of the benchmark lists its techniques anew, at the next look of the control worker."""
        for project in Project.objects.filter(benchmark=self.benchmark).exclude(techniques={}):
            Project.objects.filter(pk=project.pk).update(techniques=project.techniques | {"version": ""})


def may_become_technique(experiment: Experiment) -> Idea:
    """The idea of a confirmed change that no catalogue knows. Raises NotMergeable with the reason."""
    idea = experiment.candidate.idea if experiment.candidate else None
    verdict = getattr(experiment, "verdict", None)
    if idea is None or idea.kind != Idea.Kind.CHANGE:
        raise NotMergeable("only a change of a researcher's own can become a technique")
    if verdict is None or verdict.kind != str(VerdictKind.IMPROVED):
        raise NotMergeable("only what was confirmed to improve can become a technique")
    if experiment.findings.standing().exists():
        raise NotMergeable("a finding stands against it")
    return idea


def _worth(experiment: Experiment) -> tuple[float, float]:
    """The relative gain, shrunk as its verdict was, and its standard error."""
    verdict, lesson = experiment.verdict, getattr(experiment, "lesson", None)
    gain = lesson.effect if lesson and lesson.effect is not None else verdict.relative or 0.0
    if verdict.effect and verdict.shrunk is not None:
        gain *= verdict.shrunk / verdict.effect
    return gain, max((lesson.error if lesson else None) or 0.01, SMALLEST_SD)


def _check_words(fields: Mapping[str, str], taken: set[str]) -> None:
    name = fields["name"]
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise NotMergeable("a name is 3 to 40 small letters, digits and underscores, and begins with a letter")
    if name in taken:
        raise NotMergeable(f"the lab has a technique {name} already; choose another name")
    if not re.fullmatch(r"[a-z][a-z0-9_ -]{1,39}", fields["family"]):
        raise NotMergeable("a family is one or two words, such as optimizer")
    for what, most in (("title", 160), ("hypothesis", 2_000)):
        if not 0 < len(fields[what]) <= most:
            raise NotMergeable(f"a {what} of at most {most} characters is needed")


def _knob(row: Mapping[str, Any], constants: Mapping[str, float]) -> dict[str, Any]:
    constant = str(row.get("name", "")).upper()
    if constant not in constants:
        raise NotMergeable(f"the change sets no constant {constant[:40]} to a number")
    default, low, high = constants[constant], float(row["low"]), float(row["high"])
    log, integer = bool(row.get("log")), bool(row.get("integer"))
    if not (low < high and low <= default <= high) or (log and low <= 0) or not abs(low) + abs(high) < 1e9:
        raise NotMergeable(f"the range of {constant} must hold its value {default:g}, and be above 0 for a log scale")
    values = {"default": default, "low": low, "high": high}
    kept = {name: int(value) for name, value in values.items()} if integer else values
    return {"name": constant.lower(), **kept, "log": log, "integer": integer}
