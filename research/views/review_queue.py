"""The review queue: what waits, for whom; what was decided lately; what is likely to come next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils.safestring import SafeString, mark_safe

from research.drawing import strip
from research.loop import noise
from research.models import Comment, Experiment, Membership, MergeRequest, NotMergeable, Project, Trial, Verdict
from research.templatetags.lab import evalue
from research.validation.records import Severity, Stage
from research.views.gain import Gain, gain_of
from research.views.pairs import Pairs, direction_of, pairs_of
from research.views.rulewords import what_next

DECIDED = 15
NEXT = 5
RECENT = 24  # trials that tell how fast a project measures
STAGES = ("", *map(str, Stage))


@dataclass(frozen=True)
class Waiting:
    """One open request, as this person sees it."""

    request: MergeRequest
    gain: Gain | None
    shrunk: float | None  # share of the baseline's score
    below: int  # open requests that it stands on
    findings: int  # that ask for a person's look
    unresolved: int  # comments
    blocked: str  # why this person cannot approve it; empty where they can

    @property
    def e_value(self) -> str:
        return evalue(self.request.verdict.e_value)

    @property
    def strip(self) -> SafeString:
        verdict = self.request.verdict
        direction = direction_of(verdict.experiment)
        gains = [
            direction.gain(pair["baseline"], pair["candidate"])
            for pair in verdict.evidence["pairs"]
            if pair["stage"] == "confirm"
        ]
        return mark_safe(strip.small(gains, effect_of(verdict), sigma_of(verdict)))  # noqa: S308  it escapes


@dataclass(frozen=True)
class Upcoming:
    """An experiment that may become the next request."""

    experiment: Experiment
    pairs: Pairs
    what: str
    eta: float | None  # seconds until the pairs that are planned are measured

    @property
    def stage(self) -> str:
        return self.pairs.rows[-1].stage if self.pairs.rows else ""


class Queue:
    """Computed as the template asks, so that a fragment costs what it shows."""

    def __init__(self, user: AbstractUser) -> None:
        self.user = user
        self.projects = Membership.projects_of(user)

    @cached_property
    def levels(self) -> dict[int, int]:
        """The lowest isolation level of each waiting request's experiment, by its pk."""
        asked = [row.request.verdict.experiment_id for row in self.waiting]
        return Experiment.objects.filter(pk__in=asked).isolation()

    @cached_property
    def waiting(self) -> list[Waiting]:
        """Yours first, then the larger gain."""
        turns: dict[object, str] = {}
        found = [self._waiting(request, turns) for request in open_requests(self.projects)]
        return sorted(found, key=lambda row: (bool(row.blocked), -(row.shrunk or 0.0), row.request.pk))

    def _waiting(self, request: MergeRequest, turns: dict[object, str]) -> Waiting:
        chain = request.stack()
        key = (request.project_id, chain[0].base, frozenset(part.thread_id for part in chain))
        if key not in turns:  # requests of one stack share the answer
            turns[key] = blocked(request, self.user)
        gain = gain_of(request.verdict)
        shrunk = request.verdict.shrunk
        share = shrunk / request.verdict.effect * gain.mean if gain and shrunk and request.verdict.effect else None
        return Waiting(request, gain, share, len(chain) - 1, request.looks, self.unresolved(request), turns[key])  # type: ignore[attr-defined]

    def unresolved(self, request: MergeRequest) -> int:
        """Comments that nobody has resolved, of the request and what it superseded."""
        count, at = self._unresolved.get(request.pk, 0), request.supersedes_id
        while at:
            count, at = count + self._unresolved.get(at, 0), self._superseded.get(at)
        return count

    @cached_property
    def _unresolved(self) -> dict[int, int]:
        rows = Comment.objects.unresolved().filter(request__project__in=self.projects)
        return dict(rows.values_list("request").annotate(count=Count("pk")))

    @cached_property
    def _superseded(self) -> dict[int, int]:
        rows = MergeRequest.objects.filter(project__in=self.projects, supersedes__isnull=False)
        return {pk: before for pk, before in rows.values_list("pk", "supersedes") if before}

    @property
    def one_reason(self) -> str:
        """Why none is for this person, where the reason is the same for all."""
        reasons = {row.blocked for row in self.waiting}
        return reasons.pop() if len(reasons) == 1 else ""

    @property
    def mine(self) -> int:
        return sum(not row.blocked for row in self.waiting)

    @cached_property
    def decided(self) -> list[tuple[MergeRequest, Gain | None]]:
        rows = MergeRequest.objects.filter(project__in=self.projects).exclude(state=MergeRequest.State.OPEN)
        related = rows.select_related("project", "thread__project", "verdict", "candidate__idea", "decided_by")
        newest = related.order_by(Coalesce("decided", "created").desc(), "-pk")[:DECIDED]
        return [(row, gain_of(row.verdict)) for row in newest]

    @cached_property
    def next_up(self) -> list[Upcoming]:
        """Comparisons under way, the furthest first."""
        running = Experiment.objects.running().filter(project__in=self.projects, purpose=Experiment.Purpose.COMPARE)
        rows = list(running.select_related("project", "thread__project", "candidate__idea"))
        pairs = pairs_of(rows)
        speeds = {project: seconds_a_trial(project) for project in {row.project_id for row in rows}}
        found = []
        for row in rows:
            mine, speed = pairs[row.pk], speeds[row.project_id]
            shared = sum(other.project_id == row.project_id for other in rows)
            found.append(Upcoming(row, mine, what_next(row, mine), _eta(mine, speed, shared)))
        return sorted(found, key=lambda row: (-STAGES.index(row.stage), row.experiment.pk))[:NEXT]

    @cached_property
    def noise(self) -> list[tuple[Project, int, int]]:
        """Projects whose noise floor is being measured: nothing of them is confirmed before."""
        active = self.projects.filter(state=Project.State.ACTIVE)
        progress = [(project, *noise.progress(project)) for project in active[:NEXT]]
        return [(project, done, wanted) for project, done, wanted in progress if done < wanted]

    def around(self, request: MergeRequest) -> tuple[MergeRequest | None, MergeRequest | None, int, int]:
        """The requests before and after this one in the queue, its place (0: not in it) and the queue's length."""
        rows = [row.request for row in self.waiting]
        if request not in rows:
            return None, rows[0] if rows else None, 0, len(rows)
        at = rows.index(request)
        after = rows[at + 1] if at + 1 < len(rows) else None
        return rows[at - 1] if at else None, after, at + 1, len(rows)


def open_requests(projects: QuerySet[Project]) -> list[MergeRequest]:
    """Open requests with what a list shows, each parent the very object of the list."""
    look = Q(
        verdict__experiment__findings__severity=str(Severity.REVIEW),
        verdict__experiment__findings__overridden_at=None,
    )
    related = ("project", "thread__project", "verdict__experiment", "candidate__idea", "candidate__diff", "parent")
    rows = MergeRequest.objects.open().filter(project__in=projects).select_related(*related)
    rows = rows.defer("candidate__diff__patch").annotate(looks=Count("verdict__experiment__findings", filter=look))
    by_pk = {row.pk: row for row in rows.order_by("pk")}
    for row in by_pk.values():
        if row.parent_id in by_pk:
            row.parent = by_pk[row.parent_id]
    return list(by_pk.values())


def blocked(request: MergeRequest, user: AbstractUser) -> str:
    """Why this person cannot approve it, in one line; empty where they can."""
    try:
        request.may_approve(user)  # type: ignore[arg-type]  # the lab's users are auth.User
    except NotMergeable as refusal:
        return str(refusal)
    return ""


def effect_of(verdict: Verdict) -> strip.Effect | None:
    if verdict.effect is None:
        return None
    return strip.Effect(verdict.effect, verdict.shrunk, verdict.low, verdict.high)


def sigma_of(verdict: Verdict) -> float | None:
    noise_floor = verdict.evidence.get("noise")
    return noise_floor["sigma_pair"] if noise_floor else None


def seconds_a_trial(project: int) -> float | None:
    """How long the project's machines take for a trial, from the newest ones that ended."""
    ended = Trial.objects.comparing().filter(project=project, ended__isnull=False).order_by("-ended")
    times: list[datetime] = [at for at in ended.values_list("ended", flat=True)[:RECENT] if at]
    if len(times) < 4:
        return None
    return (times[0] - times[-1]).total_seconds() / (len(times) - 1)


def _eta(pairs: Pairs, seconds: float | None, running: int) -> float | None:
    """The experiments under way take turns, so each waits for the others."""
    missing = sum(2 for pair in pairs.rows if pair.state in ("waiting", "running"))
    return missing * seconds * running if seconds and missing else None
