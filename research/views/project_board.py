"""What the project page shows, each part looked up when it is drawn: a fragment pays for itself alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Avg, QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils.safestring import SafeString

from research.loop import noise
from research.loop.account import paid
from research.loop.floors import noise_floor
from research.loop.headline import Headline, headline_of
from research.models import (
    Call,
    Experiment,
    Lesson,
    Machine,
    Membership,
    MergeRequest,
    NoiseFloor,
    Project,
    Result,
    Role,
)  # fmt: skip
from research.models.pace import pair_seconds
from research.researchers import OFFERED
from research.templatetags.lab import money as in_money
from research.validation.records import Rule, VerdictKind
from research.views.datawords import DataUsed, data_used
from research.views.experiment_rows import ExperimentRow, experiment_rows
from research.views.frontier import Frontier, Key, drawing, frontier_of, key_of
from research.views.gain import Gain, gain_of
from research.views.spent import Spent, spent_of
from research.views.wall import ThreadRow, thread_rows

PAGE = 50
RUNNING = ("running", "noise", "closing")  # what the filter offers besides the verdicts


@dataclass(frozen=True)
class RequestRow:
    request: MergeRequest
    gain: Gain | None
    depth: int  # requests below it that an approval takes along


@dataclass(frozen=True)
class Burn:
    """One budget: what was spent of which limit, in words; `share` fills the bar."""

    name: str
    spent: str
    limit: str
    share: float | None

    @property
    def tone(self) -> str:
        return "bad" if (self.share or 0) >= 1 else "warn" if (self.share or 0) > 0.8 else ""


@dataclass(frozen=True)
class Noise:
    """The noise floor, or how far its measurement has come."""

    done: int
    wanted: int
    floor: NoiseFloor | None
    relative: float | None  # of a pair, as a share of the start's score
    seconds_left: float


@dataclass(frozen=True)
class Sample:
    """What a model of this commit writes after its training. Data, never markup."""

    name: str
    commit: str
    text: str
    score: float | None


class ProjectBoard:
    def __init__(self, project: Project, user: AbstractBaseUser | AnonymousUser, query: QueryDict) -> None:
        self.project, self.user, self.query = project, user, query

    @cached_property
    def role(self) -> int:
        return Membership.role_of(self.user, self.project)  # type: ignore[arg-type]

    @property
    def may_steer(self) -> bool:
        return self.role >= Role.MEMBER

    @property
    def has_problems(self) -> bool:
        return bool(self.project.problems)

    @property
    def researchers(self) -> list[str]:
        return list(OFFERED)

    # Frontier

    @cached_property
    def key(self) -> Key:
        return key_of(self.project)

    @property
    def key_text(self) -> str:
        """Changes with the drawing: a browser that has it already is not sent it again."""
        return hashlib.sha256(repr((self.key, self.axis)).encode()).hexdigest()[:16]

    @cached_property
    def frontier(self) -> Frontier:
        return frontier_of(self.project, self.key)

    @property
    def axis(self) -> str:
        return "time" if self.query.get("x") == "time" else "experiments"

    @property
    def drawing(self) -> SafeString:
        return drawing(self.key, self.axis == "time")

    @cached_property
    def headline(self) -> Headline | None:
        """Of many problems; None of one."""
        return headline_of(self.project)

    # Threads, requests, lessons

    @cached_property
    def spent(self) -> Spent:
        return spent_of(self.project)

    @cached_property
    def data(self) -> DataUsed:
        return data_used(self.project)

    @cached_property
    def threads(self) -> list[ThreadRow]:
        return thread_rows([self.project], self.project.threads.order_by("number"))

    @cached_property
    def requests(self) -> list[RequestRow]:
        rows = self.project.merge_requests.open().order_by("pk")
        requests = list(rows.select_related("verdict", "thread", "candidate__idea"))
        opened = {request.pk: request for request in requests}
        return [RequestRow(request, gain_of(request.verdict), _below(request, opened)) for request in requests[::-1]]

    @cached_property
    def lessons(self) -> QuerySet[Lesson]:
        rows = self.project.lessons.filter(retracted=False).select_related("experiment__candidate__idea")
        return rows.order_by("-pk")[:5]

    # Experiments

    @property
    def kind(self) -> str:
        kind = self.query.get("kind", "")
        return kind if kind in self.kinds else ""

    @property
    def kinds(self) -> list[str]:
        return [*(str(kind) for kind in VerdictKind), *RUNNING]

    @property
    def of_thread(self) -> int | None:
        number = self.query.get("thread", "")
        return int(number) if number.isascii() and number.isdigit() and len(number) < 7 else None

    @property
    def page(self) -> int:
        number = self.query.get("page", "1")
        return max(1, int(number)) if number.isascii() and number.isdigit() and len(number) < 7 else 1

    def chosen(self) -> QuerySet[Experiment]:
        """The experiments that the filters leave, newest first."""
        rows = self.project.experiments.order_by("-number")
        if self.kind == "running":
            rows = rows.filter(state=Experiment.State.RUNNING)
        elif self.kind in RUNNING:
            rows = rows.filter(purpose=self.kind)
        elif self.kind:
            rows = rows.filter(verdict__kind=self.kind)
        if self.of_thread is not None:
            rows = rows.filter(thread__number=self.of_thread)
        return rows

    @cached_property
    def count(self) -> int:
        return self.chosen().count()

    @property
    def pages(self) -> int:
        return max(1, -(-self.count // PAGE))

    @cached_property
    def experiments(self) -> list[ExperimentRow]:
        first = (min(self.page, self.pages) - 1) * PAGE
        return experiment_rows(self.chosen(), first, PAGE)

    def link(self, **changes: object) -> str:
        """The page's own query with changes; what is empty is left out."""
        now = {"x": self.query.get("x", ""), "kind": self.kind, "thread": self.of_thread, "page": self.page}
        kept = {name: value for name, value in (now | changes).items() if value and (name, value) != ("page", 1)}
        return f"?{urlencode(kept)}" if kept else "?"

    @property
    def by_experiments(self) -> str:
        return self.link(x="")

    @property
    def by_time(self) -> str:
        return self.link(x="time")

    @property
    def filters(self) -> list[tuple[str, str, int | None, bool]]:
        """(word, link, how many, chosen) of each kind that there is."""
        counts = self.frontier.counts
        shown = [kind for kind in self.kinds if counts.get(kind) or kind in RUNNING]
        rows = [(kind, self.link(kind=kind, page=1), counts.get(kind), kind == self.kind) for kind in shown]
        return [("all", self.link(kind="", page=1), None, not self.kind), *rows]

    @property
    def all_threads(self) -> str:
        return self.link(thread="", page=1)

    @property
    def compare(self) -> str:
        """The newest confirmed gains side by side; the page's own suggestions where there are none."""
        newest = [rise.experiment for rise in self.frontier.all_steps[-4:]]
        return f"{reverse('compare')}?e={','.join(newest)}" if newest else reverse("compare")

    @property
    def csv(self) -> str:
        return f"{self.link(page=1)}&export=csv"

    @property
    def newer(self) -> str:
        return self.link(page=self.page - 1) if self.page > 1 else ""

    @property
    def older(self) -> str:
        return self.link(page=self.page + 1) if self.page < self.pages else ""

    @property
    def here(self) -> str:
        return self.link().lstrip("?")

    # Budget, noise, samples

    @property
    def budget(self) -> list[Burn]:
        project, spent = self.project, self.spent.all
        hours = project.max_device_seconds and project.max_device_seconds / 3600
        wall = project.max_wall_seconds and project.max_wall_seconds / 3600
        return [
            _burn("trials", spent.trials, project.max_trials, "{:,.0f}".format),
            _burn("device-hours", spent.seconds / 3600, hours, "{:.2f} h".format),
            _burn("hours of search", project.wall_seconds / 3600, wall, "{:.2f} h".format),
            *self._models(),
        ]

    def _models(self) -> list[Burn]:
        """Money and tokens of models, reserves of calls under way included; nothing where none is asked or capped."""
        project = self.project
        money, tokens = paid(Call.objects.filter(session__project=project))
        if not tokens and not money and project.max_money is None and project.max_tokens is None:
            return []
        limit = None if project.max_money is None else float(project.max_money)
        return [
            _burn("money for models", money, limit, in_money),
            _burn("tokens", tokens, project.max_tokens, "{:,.0f}".format),
        ]

    @cached_property
    def noise(self) -> Noise:
        floor = noise_floor(self.project)
        apart = bool(self.project.screen_preset)  # then another floor is measured, too
        done, wanted = noise.progress(self.project) if floor is None or apart else (floor.trials, floor.trials)
        level = floor and self._results(self.project.start_commit).aggregate(mean=Avg("score"))["mean"]
        relative = floor.sigma_pair / abs(level) if floor and level else None
        return Noise(done, wanted, floor, relative, noise.seconds_left(self.project) if done < wanted else 0.0)

    @property
    def measures(self) -> bool:
        """Whether a comparison is being measured: an idea may still be in the making."""
        return self.project.experiments.running().filter(purpose=Experiment.Purpose.COMPARE).exists()

    @property
    def attached(self) -> bool:
        return Machine.objects.living().exists()

    @cached_property
    def rule(self) -> Rule:
        return Rule.from_json(self.project.rule)

    @property
    def look_pairs(self) -> int:
        return self.rule.looks[0]

    @property
    def verdict_seconds(self) -> float:
        """About how long the first verdict takes: most ideas end after screening and extension."""
        pairs = self.rule.screen_pairs + self.rule.extend_pairs or self.look_pairs
        return pairs * pair_seconds(self.project, self.project.screen_preset)

    @property
    def device_hours(self) -> str:
        return _hours(self.project.max_device_seconds)

    @property
    def max_money(self) -> str:
        """Without the zeros behind it."""
        return "" if self.project.max_money is None else f"{self.project.max_money.normalize():f}"

    @property
    def wall_hours(self) -> str:
        return _hours(self.project.max_wall_seconds)

    @cached_property
    def newest(self) -> Result | None:
        """The newest result tells the class of machine and the isolation."""
        done = self.project.trials.filter(result__isnull=False).order_by("-pk")
        trial = done.select_related("result").defer("result__sample", "result__observations").first()
        return trial.result if trial else None

    def _results(self, commit: str) -> QuerySet[Result]:
        return Result.objects.filter(trial__project=self.project, trial__commit=commit, trial__preset="")

    @cached_property
    def samples(self) -> list[Sample]:
        """Start and champion. Empty where the benchmark writes none."""
        commits = {"start": self.project.start_commit, "champion": self.project.champion}
        found = []
        for name, commit in commits.items():
            results = self._results(commit)
            # Asked for as a set: ordering by the result's id would lead SQLite through all results of the project.
            if written := sorted(results.exclude(sample="").values_list("pk", "sample")):
                found.append(Sample(name, commit, written[0][1], results.aggregate(mean=Avg("score"))["mean"]))
        return found if len({sample.commit for sample in found}) == 2 else found[:1]


def _hours(seconds: float | None) -> str:
    return f"{seconds / 3600:.6g}" if seconds else ""


def _below(request: MergeRequest, opened: dict[int, MergeRequest]) -> int:
    depth, at = 0, request.parent_id
    while at in opened:
        depth, at = depth + 1, opened[at].parent_id
    return depth


def _burn(name: str, spent: float, limit: float | None, form: Callable[[float], str]) -> Burn:
    words = form(limit) if limit else "no limit"
    return Burn(name, form(spent), words, min(1.0, spent / limit) if limit else None)
