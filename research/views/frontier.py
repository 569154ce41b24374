"""The frontier of a project: how far its champion is above the start, and where every attempt came out.

The height of a commit is its gain over the start as a share of the start's score. It is a product of measured gains:
every confirmed verdict measured its candidate against its baseline in fresh pairs, and along the chain of merges those
gains compound (two of 10 % on a metric that falls leave 81 %: a gain of 19 %). An attempt stands at its own measured
gain on top of its baseline's height. Only confirm pairs count for a step; an attempt shows the pairs that it has.

Of a project on many problems the height is the gain of the geometric mean over all of them: what a verdict measured on
k of n problems counts by the n-th root of its k-th power, so unrelated scores never meet and each merge multiplies.

The interval of a step combines the intervals of the gains below it as independent errors, on the log scale. Where the
champion was measured against the start itself (the closing experiment), that is the better number, and is said first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from statistics import mean, stdev
from typing import NamedTuple

from django.db.models import F
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from research.drawing.scale import time_ticks, whole_ticks
from research.drawing.sparkline import sparkline
from research.drawing.staircase import Axis, Dot, Step, staircase
from research.models import Experiment, MergeRequest, Project, Verdict
from research.models.experiment import ExperimentQuerySet
from research.templatetags.lab import percent
from research.views.gain import gain_of

# 97.5 % points of Student's t by degrees of freedom; beyond the table the normal one is close enough.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


class Attempt(NamedTuple):
    """One verdict. `base` and `height` are gains over the start, of its baseline and of itself."""

    number: int
    thread: int | None
    base: float
    height: float | None  # None: a failure
    gain: float | None  # over its baseline
    kind: str
    seconds: float  # since the project began


@dataclass(frozen=True)
class Rise:
    """A confirmed gain on the way from the start to the champion, or waiting on top of it."""

    experiment: str  # public id
    number: int
    seconds: float
    height: float
    low: float
    high: float
    gain: float
    half: float | None
    pairs: int
    what: str
    thread: int
    researcher: str
    decided: str  # "approved by rosa", "approved by policy", "waits for a person"
    commit: str
    isolation: int | None = None  # the lowest level among its trials

    @property
    def title(self) -> str:
        gain = percent(self.gain) + (f" ± {100 * self.half:.1f} %" if self.half is not None else "")
        who = f"thread {self.thread}, {self.researcher}; {self.decided}"
        who += f"; isolation level {self.isolation}" if self.isolation is not None else ""
        return f"Experiment {self.number}: {self.what} {gain} over {self.pairs} pairs ({who})"


@dataclass(frozen=True)
class Total:
    """Champion against start, measured directly."""

    experiment: str
    number: int
    seconds: float
    gain: float
    half: float
    pairs: int
    isolation: int | None


@dataclass(frozen=True)
class Frontier:
    attempts: Sequence[Attempt]
    heights: Mapping[str, float]  # of the start and of every confirmed candidate, by commit
    steps: Sequence[Rise]
    waiting: Sequence[Rise]
    total: Total | None
    counts: Mapping[str, int]  # verdicts by kind
    problems: int = 0  # of how many a height is the mean; 0: of one benchmark's score

    @property
    def gain(self) -> Rise | None:
        """The champion's: the last step. None while `main` is the start."""
        return self.steps[-1] if self.steps else None

    @property
    def isolation(self) -> int | None:
        """The lowest level that a step of the champion was measured at."""
        return min((step.isolation for step in self.steps if step.isolation is not None), default=None)

    @property
    def all_steps(self) -> list[Rise]:
        return [*self.steps, *self.waiting]

    @property
    def verdicts(self) -> int:
        return len(self.attempts)

    @property
    def seconds(self) -> float:
        return max([attempt.seconds for attempt in self.attempts[-1:]], default=0.0)

    @property
    def summary(self) -> str:
        """What the drawing shows, in words."""
        over = f"the start in the mean of {self.problems} problems" if self.problems else "the start"
        gain = f"gain {percent(self.gain.height)} over {over}" if self.gain else "the champion is the start"
        waits = f", {len(self.waiting)} confirmed gains wait for a person" if self.waiting else ""
        return f"{self.verdicts} attempts, {len(self.steps)} merged: {gain}{waits}"

    def last_of(self, thread: int) -> Attempt | None:
        return next((attempt for attempt in reversed(self.attempts) if attempt.thread == thread), None)

    def path_of(self, thread: int) -> tuple[list[float], list[str]]:
        """A thread's head: its height before the first verdict and after each, and what each verdict was."""
        mine = [attempt for attempt in self.attempts if attempt.thread == thread]
        after = [a.height if a.kind == "improved" and a.height is not None else a.base for a in mine]
        return [*(attempt.base for attempt in mine[:1]), *after], [attempt.kind for attempt in mine]

    def spark(self, thread: int) -> SafeString:
        heights, kinds = self.path_of(thread)
        said = f"{len(kinds)} verdict{'s' * (len(kinds) != 1)}, {kinds.count('improved')} improved"
        said += f": head at {percent(heights[-1])} over the start" if heights else ""
        return mark_safe(sparkline(heights, kinds, said))  # it escapes what it is given


Key = tuple[int, int, str, tuple[int, ...], int]


def key_of(project: Project) -> Key:
    """Changes exactly when the frontier does. Four small queries."""
    # `+ 0` keeps the index of projects out: by it SQLite walks and sorts all verdicts of the project, 15 ms of 10,000.
    verdicts = Verdict.objects.annotate(home=F("experiment__project_id") + 0).filter(home=project.pk)
    newest = verdicts.order_by("-pk").values_list("pk", flat=True).first() or 0
    waiting = tuple(project.merge_requests.open().order_by("pk").values_list("pk", flat=True))
    closed = _closing(project).values_list("pk", flat=True).first() or 0
    return project.pk, newest, project.champion, waiting, closed


def frontier_of(project: Project, key: Key | None = None) -> Frontier:
    return _read(key or key_of(project))


@lru_cache(maxsize=12)  # 10,000 attempts are 2 MB
def _read(key: Key) -> Frontier:
    project = Project.objects.get(pk=key[0])
    lower = project.contract.metric.lower_is_better
    requests = list(
        MergeRequest.objects.filter(project=project)
        .select_related("verdict__experiment", "thread", "candidate__idea", "decided_by")
        .defer("verdict__experiment__rule", "candidate__recipe", "candidate__idea__steps")
        .order_by("pk")
    )
    heights = _heights(project, requests, lower)
    attempts = _attempts(project, heights, lower)
    steps, waiting = _chains(project, requests, heights, lower)
    counts = dict(Counter(row.kind for row in attempts))
    return Frontier(attempts, heights, steps, waiting, _total(project), counts, len(project.problems))


def _heights(project: Project, requests: Sequence[MergeRequest], lower: bool) -> dict[str, float]:
    """Of the start, and of every commit that a request stands for or was measured as."""
    heights, by_commit = {project.start_commit: 0.0}, {request.commit: request for request in requests}
    for request in requests:
        chain = [request]  # down to what is known: one that was carried may stand on a younger one
        while chain[-1].base not in heights and chain[-1].base in by_commit:
            chain.append(by_commit[chain[-1].base])
        for each in chain[::-1]:
            gain, experiment = gain_of(each.verdict), each.verdict.experiment
            share = share_of(project, experiment.problems)
            mine = over_all(gain.mean if gain else 0.0, share, lower)
            heights[each.commit] = compound(heights.get(each.base, 0.0), mine, lower)
            measured = compound(heights.get(experiment.baseline_commit, 0.0), mine, lower)
            heights.setdefault(experiment.candidate_commit, measured)
    return heights


def share_of(project: Project, problems: Sequence[str]) -> float:
    """How much of the mean over a project's problems these are."""
    return len(problems) / len(project.problems) if project.problems else 1.0


def over_all(gain: float, share: float, lower: bool) -> float:
    """What a gain on this share of the problems is in the geometric mean over all of them."""
    if share == 1:
        return gain
    factor = max(1 - gain, 1e-9) if lower else 1 + gain
    power = math.exp(share * math.log(factor))
    return 1 - power if lower else power - 1


def compound(height: float, gain: float, lower: bool) -> float:
    """The gain over the start of what gains `gain` over something that stands at `height`."""
    return 1 - (1 - height) * (1 - gain) if lower else (1 + height) * (1 + gain) - 1


def _attempts(project: Project, heights: Mapping[str, float], lower: bool) -> list[Attempt]:
    rows = (
        Verdict.objects.filter(experiment__project=project, experiment__purpose=Experiment.Purpose.COMPARE)
        .order_by("experiment__number")
        .values_list(
            "experiment__number", "experiment__thread_id", "experiment__baseline_commit",
            "experiment__candidate_commit", "kind", "relative", "created", "experiment__problems",
        )
    )  # fmt: skip
    attempts, began = [], project.created
    for number, thread, baseline, candidate, kind, relative, created, problems in rows:
        base = heights.get(baseline, 0.0)
        height = heights.get(candidate) if kind == "improved" else None
        if height is None and kind != "invalid" and relative is not None:
            height = compound(base, over_all(relative, share_of(project, problems), lower), lower)
        attempts.append(Attempt(number, thread, base, height, relative, kind, (created - began).total_seconds()))
    return attempts


def _chains(
    project: Project, requests: Sequence[MergeRequest], heights: Mapping[str, float], lower: bool
) -> tuple[list[Rise], list[Rise]]:
    """The merges between start and champion, and the highest stack of open requests on the champion."""
    by_commit = {request.commit: request for request in requests}
    merged = _chain(project.champion, by_commit, {MergeRequest.State.MERGED})
    open_tops = [request.commit for request in requests if request.state == MergeRequest.State.OPEN]
    stacks = [_chain(commit, by_commit, {MergeRequest.State.OPEN}) for commit in open_tops]
    on_main = [stack for stack in stacks if stack and stack[0].base == project.champion]
    highest = max(on_main, key=lambda stack: heights[stack[-1].commit], default=[])
    rises = _rises(project, [*merged, *highest], heights, lower)
    return rises[: len(merged)], rises[len(merged) :]


def _chain(commit: str, by_commit: Mapping[str, MergeRequest], states: set[MergeRequest.State]) -> list[MergeRequest]:
    """The requests in these states below a commit, oldest first."""
    found: list[MergeRequest] = []
    while (request := by_commit.get(commit)) and request.state in states:
        found.append(request)
        commit = request.base
    return found[::-1]


def _rises(project: Project, requests: Sequence[MergeRequest], heights: Mapping[str, float], lower: bool) -> list[Rise]:
    variance, rises = 0.0, []
    levels = Experiment.objects.filter(pk__in=[request.verdict.experiment_id for request in requests]).isolation()
    for request in requests:
        gain, height = gain_of(request.verdict), heights[request.commit]
        if gain and gain.half is not None:
            share = share_of(project, request.verdict.experiment.problems)
            variance += (share * _log_half(gain.low, gain.high, lower)) ** 2
        low, high = _interval(height, math.sqrt(variance), lower)
        experiment, idea = request.verdict.experiment, request.candidate.idea
        rises.append(
            Rise(
                experiment.public_id, experiment.number, _since(project, request.verdict.created), height, low, high,
                gain.mean if gain else 0.0, gain.half if gain else None, gain.pairs if gain else 0,
                idea.title or idea.hypothesis, request.thread.number, request.thread.researcher,
                _decided(request), request.commit, levels.get(experiment.pk),
            )
        )  # fmt: skip
    return rises


def _log_half(low: float, high: float, lower: bool) -> float:
    """Half the width of the interval of a factor, on the log scale. A factor of 0 or less has none: a wide one."""
    ends = (1 - high, 1 - low) if lower else (1 + low, 1 + high)
    return math.log(ends[1] / ends[0]) / 2 if min(ends) > 0 else 1.0


def _interval(height: float, half: float, lower: bool) -> tuple[float, float]:
    factor = 1 - height if lower else 1 + height
    below, above = factor * math.exp(-half), factor * math.exp(half)
    return (1 - above, 1 - below) if lower else (below - 1, above - 1)


def _decided(request: MergeRequest) -> str:
    if request.state == MergeRequest.State.OPEN:
        return "waits for a person"
    return f"approved by {request.decided_by}" if request.decided_by else "approved by the project's policy"


def _closing(project: Project) -> ExperimentQuerySet:
    """Found by its key, which is indexed: the page asks at every look."""
    return Experiment.objects.filter(key=f"closing-{project.public_id}", state=Experiment.State.ENDED)


def _total(project: Project) -> Total | None:
    """The closing experiment of the champion that stands now: mean paired gain with a Student interval."""
    experiment = _closing(project).first()
    if experiment is None or experiment.candidate_commit != project.champion:
        return None
    scores: dict[int, dict[str, float | None]] = {}
    rows = experiment.trials.filter(result__score__isnull=False)
    for pair, arm, score in rows.values_list("pair", "arm", "result__score"):
        scores.setdefault(pair, {})[arm] = score
    lower = project.contract.metric.lower_is_better
    sign, share = 1 if lower else -1, share_of(project, experiment.problems)
    gains = [
        over_all(sign * (start - champion) / abs(start), share, lower)
        for arms in scores.values()
        if (start := arms.get("baseline")) and (champion := arms.get("candidate")) is not None
    ]
    if len(gains) < 2:
        return None
    t = STUDENT[len(gains) - 2] if len(gains) - 2 < len(STUDENT) else 2.0
    half = t * stdev(gains) / math.sqrt(len(gains))
    ended = experiment.ended or experiment.created
    level = _closing(project).isolation().get(experiment.pk)
    return Total(experiment.public_id, experiment.number, _since(project, ended), mean(gains), half, len(gains), level)


def _since(project: Project, moment: datetime) -> float:
    return (moment - project.created).total_seconds()


@lru_cache(maxsize=12)
def drawing(key: Key, by_time: bool = False, height: int = 300) -> SafeString:
    """The staircase of a frontier. Steps lead to their experiments. Its words are escaped where it is drawn."""
    seen = _read(key)

    def at(row: Attempt | Rise | Total) -> float:
        return row.seconds if by_time else float(row.number)

    ends = [*map(at, seen.attempts[-1:]), *map(at, seen.steps[-1:]), at(seen.total) if seen.total else 0.0]
    end = max([*ends, 60.0 if by_time else 4.0]) * 1.01
    marks = time_ticks(end) if by_time else [(tick, f"{tick:.0f}") for tick in whole_ticks(0, end, 8)]
    dots = [Dot(at(row), row.height, row.kind) for row in seen.attempts]
    total = _measured(seen.total, at(seen.total)) if seen.total else None
    svg = staircase(
        [_step(rise, at(rise)) for rise in seen.steps], dots, Axis(0, end, marks),
        waiting=[_step(rise, at(rise)) for rise in seen.waiting], total=total, summary=seen.summary, height=height,
    )  # fmt: skip
    return mark_safe(svg)


def _measured(total: Total, x: float) -> Step:
    title = f"Measured against the start on {total.pairs} fresh pairs: {percent(total.gain)}"
    title += f"; isolation level {total.isolation}" if total.isolation is not None else ""
    return Step(x, total.gain, total.gain - total.half, total.gain + total.half, title)


def _step(rise: Rise, x: float) -> Step:
    return Step(x, rise.height, rise.low, rise.high, rise.title, reverse("experiment", args=[rise.experiment]))
